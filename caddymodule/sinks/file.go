package sinks

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit/follow"
	"github.com/moat-gateway/moat/internal/audit/sinks/file"
)

// File appends each event as a line to a file, a plain copy for whoever ships logs.
// At a size the file is renamed and another one begun; those renamed beyond a
// number are removed, oldest first. A delivery is done when it is on disk.
type File struct {
	// Path of the file. It may not lie in the journal's directory.
	Path string `json:"path,omitempty"`
	// RollSize is the size in bytes at which another file is begun, at least 1 MiB.
	// Default: 100 MiB.
	RollSize int64 `json:"roll_size,omitempty"`
	// RollKeep is how many renamed files are kept. Default: 10; at most 10000.
	RollKeep int64 `json:"roll_keep,omitempty"`
	// Mode of the file in octal, such as 0640 for a shipper of the same group.
	// Default: 0600.
	Mode string `json:"mode,omitempty"`
	// Timeout is the budget of one delivery, syncing to disk included. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

// CaddyModule returns the module's registration.
func (*File) CaddyModule() caddy.ModuleInfo {
	return module("file", func() caddy.Module { return new(File) })
}

// Provision expands placeholders.
func (f *File) Provision(caddy.Context) error { return expand(map[string]*string{"path": &f.Path}) }

// Target implements follow.Settings.
func (f *File) Target() follow.Target {
	return follow.Target{
		Place: f.Path, Files: []string{f.Path}, Timeout: time.Duration(f.Timeout),
		Means: meansOf(f.Timeout, strconv.FormatInt(f.RollSize, 10), strconv.FormatInt(f.RollKeep, 10), f.Mode),
	}
}

// Open implements follow.Settings.
func (f *File) Open() (follow.Sink, error) {
	var mode uint64
	if f.Mode != "" {
		var err error
		if mode, err = strconv.ParseUint(f.Mode, 8, 12); err != nil {
			return nil, fmt.Errorf("file: mode %.16q: must be octal, such as 0640", f.Mode)
		}
	}
	return file.New(file.Config{Path: f.Path, RollSize: f.RollSize, RollKeep: int(f.RollKeep), Mode: os.FileMode(mode), Timeout: time.Duration(f.Timeout)})
}

// UnmarshalCaddyfile reads:
//
//	file <path> {
//		roll_size <size>
//		roll_keep <number>
//		mode <octal>
//		timeout <duration>
//	}
func (f *File) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return errors.Join(named(d, &f.Path), dispense.Words{
		"roll_size": {Parse: dispense.Size(&f.RollSize)},
		"roll_keep": {Parse: dispense.Count(&f.RollKeep, 1)},
		"mode":      word(&f.Mode),
		"timeout":   timeout(&f.Timeout),
	}.Block(d, "sink file"))
}
