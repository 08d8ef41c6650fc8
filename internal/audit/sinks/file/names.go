package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// stamp is the layout of the time in a rotated name, in UTC: of one width, so that
// names sort by time, and without a colon, which some systems do not allow.
const stamp = "20060102T150405.000000Z"

// tries bounds how many names are tried at one rotation.
const tries = 1000

var errNames = plain("no free name for the rotated file was found")

// pattern is how the rotated files of one file are named.
type pattern struct{ dir, prefix, suffix string }

func patternOf(path string) pattern {
	base := filepath.Base(path)
	suffix := filepath.Ext(base)
	if suffix == base { // a hidden file without an extension
		suffix = ""
	}
	return pattern{filepath.Dir(path), strings.TrimSuffix(base, suffix) + "-", suffix}
}

func (p pattern) path(at time.Time) string {
	return filepath.Join(p.dir, p.prefix+at.Format(stamp)+p.suffix)
}

// parse returns the time in a rotated name, and false for every other name.
func (p pattern) parse(name string) (time.Time, bool) {
	text, ok := strings.CutPrefix(name, p.prefix)
	if !ok {
		return time.Time{}, false
	}
	if text, ok = strings.CutSuffix(text, p.suffix); !ok {
		return time.Time{}, false
	}
	at, err := time.Parse(stamp, text)
	return at, err == nil && at.Format(stamp) == text
}

// rotatedName matches what would be taken for a rotated file of another sink in
// the same directory, and removed.
var rotatedName = regexp.MustCompile(`-[0-9]{8}T[0-9]{6}\.[0-9]{6}Z(\.[^.]*)?$`)

// rotated returns the times of the rotated files, the oldest first. Only regular
// files count.
func (p pattern) rotated() ([]time.Time, error) {
	entries, err := os.ReadDir(p.dir) // in the order of the names
	if err != nil {
		return nil, err
	}
	var times []time.Time
	for _, entry := range entries {
		if at, ok := p.parse(entry.Name()); ok && entry.Type().IsRegular() {
			times = append(times, at)
		}
	}
	return times, nil
}

// reserve makes an empty file under a new name and returns its path. A rename
// would silently replace a file that bears the name already; it can only replace
// this one. The name sorts after all others even when the clock was set back.
func (p pattern) reserve(now time.Time, mode os.FileMode) (string, error) {
	times, err := p.rotated()
	if err != nil {
		return "", err
	}
	at := now.UTC().Truncate(time.Microsecond)
	if n := len(times); n > 0 && !at.After(times[n-1]) {
		at = times[n-1].Add(time.Microsecond)
	}
	for range tries {
		path := p.path(at)
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err == nil {
			return path, file.Close()
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		at = at.Add(time.Microsecond)
	}
	return "", errNames
}

// prune removes the oldest rotated files but keep. One that stays, for example
// because somebody made it immutable, is no reason to stop the trail.
func (p pattern) prune(keep int) error {
	times, err := p.rotated()
	if err != nil {
		return err
	}
	for _, at := range times[:max(0, len(times)-keep)] {
		_ = os.Remove(p.path(at))
	}
	return nil
}
