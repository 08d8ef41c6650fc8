package headers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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

	mu    sync.Mutex
	saved []byte
}

// openPins reads the file. One that does not exist is empty.
func openPins(path string, logger *zap.Logger) (*pinFile, error) {
	p := &pinFile{path: path, set: inline.NewPins(0), logger: logger, cancel: func() {}, ended: make(chan struct{})}
	file, err := os.Open(filepath.Clean(path))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxPinFile))
	if err != nil {
		return nil, err
	}
	if err := p.set.Load(text); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	p.saved = p.set.Snapshot()
	return p, nil
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

// keep writes the file if there is something new.
func (p *pinFile) keep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := p.set.Snapshot()
	if bytes.Equal(text, p.saved) {
		return
	}
	if err := p.replace(text); err != nil {
		p.logger.Error("csp: pin: what was learned cannot be written down", zap.String("file", p.path), zap.Error(err))
		return
	}
	p.saved = text
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
	in := &inliner{mode: s.Inline, logger: ctx.Logger(), max: int(s.MaxInline)}
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
	if s.Learn {
		in.logger.Warn("csp: pin: learning: every inline script gets the nonce and is pinned", zap.String("file", s.Pins))
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
	value, _, err := pinFiles.LoadOrNew(path, func() (caddy.Destructor, error) { return openPins(path, caddy.Log().Named("moat")) })
	if err != nil {
		return err
	}
	h.pinned = append(h.pinned, path)
	in.pins = value.(*pinFile) //nolint:forcetypeassert // the pool holds nothing else
	if s.Learn {
		in.pins.learn()
	} else if in.pins.set.Len() == 0 {
		return fmt.Errorf("file %q: has no hash, so that nothing would run; let it learn first: pin %s learn", path, s.Pins)
	}
	return nil
}

// maxHashed is the longest page that is hashed, in bytes.
const maxHashed = 4 << 20

// hash reads the page to its end and returns the hashes of its code. A page that is too
// long passes, and its code does not run.
func (in *inliner) hash(resp *http.Response, page io.Reader) (*headers.Code, error) {
	text, err := io.ReadAll(io.LimitReader(page, int64(in.max)+1))
	resp.Body = replay{io.MultiReader(bytes.NewReader(text), page), resp.Body}
	if err != nil {
		return nil, fmt.Errorf("the page broke off: %w", err)
	}
	if len(text) > in.max {
		return nil, fmt.Errorf("the page has more than %d bytes", in.max)
	}
	hashes, findings, err := inline.Hashes(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	tell := in.found(resp.Request)
	for _, f := range findings {
		tell(f)
	}
	code := new(headers.Code)
	for _, hash := range hashes {
		if strings.HasPrefix(hash.String(), "style ") {
			code.Styles = append(code.Styles, hash.Source())
		} else {
			code.Scripts = append(code.Scripts, hash.Source())
		}
	}
	return code, nil
}
