package jwks

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync/atomic"

	"github.com/moat-gateway/moat/internal/filewatch"
	"github.com/moat-gateway/moat/internal/token"
)

// FileConfig says which file a key set is in.
type FileConfig struct {
	Path string
	// Algorithms that the keys may be bound to. Empty: what each key allows.
	Algorithms []string
	// OnEvent is told when the set changed and when a new content was refused,
	// once each. It may be nil.
	OnEvent func(Event)
}

// File is a key set in a file. It implements token.KeySource and token.Holder.
// The set in force stays until the file has another one that is good.
type File struct {
	cfg     FileConfig
	watcher filewatch.Watcher[*Event]
	set     atomic.Pointer[loaded]
}

// OpenFile reads the set. A file that cannot be read, or has no good set, is an
// error.
func OpenFile(c FileConfig) (*File, error) {
	data, err := filewatch.Read(c.Path, maxBody)
	if err != nil {
		return nil, err
	}
	l, err := load(data, c.Algorithms)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	f := &File{cfg: c}
	f.set.Store(l)
	f.watcher.MaxSize, f.watcher.Report = maxBody, f.report
	f.watcher.Add(filewatch.Watched[*Event]{Path: c.Path, Sum: sha256.Sum256(data), Prepare: f.prepare})
	return f, nil
}

// Check looks at the file. A change counts when two looks in a row see it.
func (f *File) Check() { f.watcher.Check() }

func (f *File) prepare(data []byte) (*Event, func(), error) {
	next, err := load(data, f.cfg.Algorithms)
	if err != nil {
		return nil, nil, err
	}
	return changes(f.set.Load(), next), func() { f.set.Store(next) }, nil
}

func (f *File) report(o filewatch.Outcome[*Event]) {
	event := o.Changes
	if o.Err != nil {
		event = &Event{Err: o.Err, Keys: f.set.Load().count}
	}
	if event != nil && f.cfg.OnEvent != nil {
		f.cfg.OnEvent(*event)
	}
}

// Lookup implements token.KeySource.
func (f *File) Lookup(ctx context.Context, kid, alg string) ([]token.Key, error) {
	return f.set.Load().keys.Lookup(ctx, kid, alg)
}

// Ready implements token.KeySource: a File always has a set.
func (f *File) Ready() bool { return true }

// Holds implements token.Holder.
func (f *File) Holds(print [sha256.Size]byte) bool { return f.set.Load().keys.Holds(print) }

// Interface guards.
var (
	_ token.KeySource = (*File)(nil)
	_ token.Holder    = (*File)(nil)
)
