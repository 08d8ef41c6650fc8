package headers

import (
	"hash/maphash"
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/moat-gateway/moat/caddymodule/internal/telemetry"
	"github.com/moat-gateway/moat/internal/headers/inline"
)

// How much of what is found is written into the log: callers choose the paths.
const (
	quiet      = time.Minute
	maxQuieted = 4096
)

// findings counts what neither a nonce nor a hash covers, and logs the same of the same
// path once a minute.
type findings struct {
	mode   string
	logger *zap.Logger
	seed   maphash.Seed

	mu    sync.Mutex
	told  map[uint64]time.Time // by kind and path
	swept time.Time
	left  int // out of the log since its last line
}

func newFindings(mode string, logger *zap.Logger) *findings {
	return &findings{mode: mode, logger: logger, seed: maphash.MakeSeed(), told: make(map[uint64]time.Time)}
}

// tell counts a finding. An unpinned hash is logged as the line that a file of hashes
// would have.
func (f *findings) tell(path string, found inline.Finding) {
	fields := []zap.Field{
		zap.Stringer("kind", found.Kind), zap.String("element", found.Element),
		zap.String("attribute", found.Attribute), zap.Int64("offset", found.Offset),
	}
	if found.Hash != (inline.Hash{}) {
		fields = append(fields, zap.Stringer("hash", found.Hash))
	}
	f.log(zapcore.InfoLevel, "a page has code that neither a nonce nor a hash allows", found.Kind.String(), path, fields)
}

// unreadable counts a page that nothing could be found in.
func (f *findings) unreadable(path string, why error) {
	f.log(zapcore.WarnLevel, "the inline code of a page cannot be brought under the policy, and will not run", "unreadable", path,
		[]zap.Field{zap.String("mode", f.mode), zap.Error(why)})
}

func (f *findings) log(level zapcore.Level, message, kind, path string, fields []zap.Field) {
	telemetry.Inline.WithLabelValues(kind).Inc()
	c := f.logger.Check(level, message)
	if c == nil {
		return
	}
	left, due := f.due(kind, path)
	if !due {
		return
	}
	c.Write(append(fields, zap.String("path", path), zap.Int("left_out", left))...)
}

// due reports whether a finding is to be logged, and how many were not since the last.
func (f *findings) due(kind, path string) (left int, due bool) {
	key := maphash.Comparable(f.seed, [2]string{kind, path})
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.swept) >= quiet {
		maps.DeleteFunc(f.told, func(_ uint64, at time.Time) bool { return now.Sub(at) >= quiet })
		f.swept = now
	}
	at, told := f.told[key]
	if told && now.Sub(at) < quiet || !told && len(f.told) >= maxQuieted {
		f.left++
		return 0, false
	}
	f.told[key] = now
	left, f.left = f.left, 0
	return left, true
}
