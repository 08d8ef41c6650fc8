package headers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/headers"
	"github.com/moat-gateway/moat/internal/headers/inline"
)

// pinFiles are the files of hashes in use, by path: what one configuration has learned
// the next one knows.
var pinFiles = caddy.NewUsagePool()

// keepEvery is how often what was learned is written down.
const keepEvery = 2 * time.Second

// maxPinFile bounds a file of hashes; 65536 of them take 4 MiB.
const maxPinFile = 8 << 20

// pinFile is a set of hashes and the file that it is kept in.
type pinFile struct {
	path   string
	set    *inline.Pins
	logger *zap.Logger
	cancel context.CancelFunc
	ended  chan struct{}
	once   sync.Once

	mu sync.Mutex
	// text is what the file held when it was last read or written, and saved the
	// same set in the order that it is written in.
	text, saved []byte
}

func newPinFile(path string, logger *zap.Logger) *pinFile {
	none := inline.NewPins(0)
	return &pinFile{
		path: path, set: none, text: none.Snapshot(), saved: none.Snapshot(),
		logger: logger, cancel: func() {}, ended: make(chan struct{}),
	}
}

// read returns what the file holds. One that does not exist is empty.
func (p *pinFile) read() ([]byte, error) {
	file, err := os.Open(filepath.Clean(p.path))
	if errors.Is(err, fs.ErrNotExist) {
		return inline.NewPins(0).Snapshot(), nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return io.ReadAll(io.LimitReader(file, maxPinFile))
}

// check reads the file for a new configuration, and changes nothing: the configuration
// may be refused for another reason. Without learning a set that allows nothing is
// refused.
func (p *pinFile) check(learn bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	text, err := p.read()
	if err != nil {
		return err
	}
	file := inline.NewPins(0)
	if err := file.Load(text); err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	if learned := !bytes.Equal(p.set.Snapshot(), p.saved); !learn && !learned && file.Len() == 0 {
		return fmt.Errorf("file %q: has no hash, so that nothing would run; let it learn first: pin %s learn", p.path, p.path)
	}
	return nil
}

// accept lets what the file holds count, for a configuration that is in use. A file that
// became wrong since leaves the set as it is.
func (p *pinFile) accept(learn bool) {
	p.mu.Lock()
	text, err := p.read()
	if err == nil {
		err = p.take(text)
	}
	p.mu.Unlock()
	if err != nil {
		p.logger.Error("csp: pin: the file cannot be read, so the hashes stay as they were", zap.String("file", p.path), zap.Error(err))
	}
	if learn {
		p.learn()
	}
}

// take lets what somebody has written into the file count: what is new there, and that
// what is missing there is gone. What was learned and is not written down yet stays.
func (p *pinFile) take(text []byte) error {
	if bytes.Equal(text, p.text) {
		return nil
	}
	file := inline.NewPins(0)
	if err := file.Load(text); err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	if err := p.set.Update(p.saved, text); err != nil {
		return err
	}
	p.text, p.saved = text, file.Snapshot()
	return nil
}

// learn writes down what is learned from now on.
func (p *pinFile) learn() {
	p.once.Do(func() {
		ctx, cancel := context.WithCancel(context.Background())
		p.cancel = cancel
		go func() {
			defer close(p.ended)
			tick := time.NewTicker(keepEvery)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					p.keep()
				case <-ctx.Done():
					p.keep()
					return
				}
			}
		}()
	})
}

// keep writes the file if there is something new. What somebody has changed in it since
// is read first, or it would be lost; a file that cannot be read is left to them.
func (p *pinFile) keep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if bytes.Equal(p.set.Snapshot(), p.saved) {
		return
	}
	if err := p.write(); err != nil {
		p.logger.Error("csp: pin: what was learned cannot be written down", zap.String("file", p.path), zap.Error(err))
	}
}

func (p *pinFile) write() error {
	text, err := p.read()
	if err != nil {
		return err
	}
	if err := p.take(text); err != nil {
		return err
	}
	text = p.set.Snapshot()
	if err := p.replace(text); err != nil {
		return err
	}
	p.text, p.saved = text, text
	return nil
}

// replace puts a new file in the place of the old one, so that a crash leaves one of
// the two.
func (p *pinFile) replace(text []byte) error {
	file, err := os.CreateTemp(filepath.Dir(p.path), ".pins-*")
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(file.Name(), p.path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
	}
	return err
}

// Destruct writes down what was learned last.
func (p *pinFile) Destruct() error {
	p.once.Do(func() { close(p.ended) }) // It never learned.
	p.cancel()
	<-p.ended
	return nil
}

// bringInline prepares what brings inline code under a policy.
func (h *Handler) bringInline(ctx caddy.Context, policy *headers.Policy, s *Settings) error {
	in := &inliner{mode: s.Inline, max: int(s.MaxInline), findings: newFindings(s.Inline, ctx.Logger())}
	// Another value than no-store lets a page with its nonce be stored.
	in.unstored = s.Cache == "" || s.Cache == "no-store"
	switch s.Inline {
	case "":
		return nil
	case modeNonce:
		in.max = 0
	case modeHash:
		in.max = max(in.max, 0)
		if in.max == 0 {
			in.max = maxHashed
		}
	case modePin:
		if err := h.usePins(ctx, in, s); err != nil {
			return fmt.Errorf("headers: csp: pin: %w", err)
		}
	default:
		return fmt.Errorf("headers: csp: inline %.32q: must be %s, %s or %s", s.Inline, modeNonce, modeHash, modePin)
	}
	if s.MaxInline < 0 || s.MaxInline > maxHashed {
		return fmt.Errorf("headers: csp: %s: %d bytes: must be at most %d", s.Inline, s.MaxInline, maxHashed)
	}
	in.config = inline.Config{MaxContent: in.max, Learn: s.Learn}
	if s.Inline == modeHash {
		in.config = inline.Config{}
	}
	if s.Inline != modeHash {
		if err := s.checkStored(); err != nil {
			return err
		}
	}
	if s.Learn {
		ctx.Logger().Warn("csp: pin: learning: every inline script gets the nonce and is pinned", zap.String("file", s.Pins))
	}
	h.inliners[policy] = in
	return nil
}

// usePins takes the file of hashes from the pool.
func (h *Handler) usePins(ctx caddy.Context, in *inliner, s *Settings) error {
	path, err := dispense.Expand("file", s.Pins)
	if err != nil {
		return err
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	value, _, err := pinFiles.LoadOrNew(path, func() (caddy.Destructor, error) {
		return newPinFile(path, caddy.Log().Named("moat")), nil
	})
	if err != nil {
		return err
	}
	h.pinned = append(h.pinned, path)
	in.pins = value.(*pinFile) //nolint:forcetypeassert // the pool holds nothing else
	return in.pins.check(s.Learn)
}

// acceptPins lets the files of hashes count with the first request: before it nobody
// knows whether the configuration is one that is used.
func (h *Handler) acceptPins() {
	h.accepted.Do(func() {
		for _, in := range h.inliners {
			if in.pins != nil {
				in.pins.accept(in.config.Learn)
			}
		}
	})
}

// maxHashed is the longest page that is hashed, in bytes.
const maxHashed = 4 << 20
