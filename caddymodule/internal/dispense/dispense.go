// Package dispense reads Caddyfile blocks the way every Moat block is read:
// a table of words, each parsed on its own, all errors collected before one of
// them is reported. It knows the Caddyfile's tokens and nothing of Moat.
package dispense

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Word says how one word of a block is read.
type Word struct {
	// Parse reads the word's arguments and its block, if it has one. The
	// dispenser holds this word's tokens only and stands on the word.
	Parse func(d *caddyfile.Dispenser) error
	// Repeats says that the word may stand more than once in its block.
	Repeats bool
}

// Words is the vocabulary of one block.
type Words map[string]Word

// Block reads the block that d stands before. Place names the block in errors,
// for example `issuer "main"`. Unknown and repeated words, leftover arguments
// and whatever the words themselves reject are all reported, joined.
func (ws Words) Block(d *caddyfile.Dispenser, place string) error {
	return EachLine(d, func(line *caddyfile.Dispenser, seen map[string]int) error {
		word := line.Val()
		w, known := ws[word]
		switch {
		case !known:
			return line.Errf("%s: unknown word %q; known are: %s", place, word, strings.Join(ws.names(), ", "))
		case seen[word] > 1 && !w.Repeats:
			return line.Errf("%s: %q stands twice; it may stand once", place, word)
		}
		if err := w.Parse(line); err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
		return Leftover(line, place+": "+word)
	})
}

func (ws Words) names() []string { return slices.Sorted(maps.Keys(ws)) }

// EachLine calls f for every line (with its block, if any) of the block that d
// stands before. Seen counts how often each first word has come, this one
// included. All errors are joined.
func EachLine(d *caddyfile.Dispenser, f func(line *caddyfile.Dispenser, seen map[string]int) error) error {
	var errs []error
	seen := make(map[string]int)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		line := d.NewFromNextSegment()
		line.Next()
		seen[line.Val()]++
		errs = append(errs, f(line, seen))
	}
	return errors.Join(errs...)
}

// Leftover reports arguments or a block that nobody read.
func Leftover(d *caddyfile.Dispenser, place string) error {
	if d.NextArg() {
		return d.Errf("%s: unexpected argument %q", place, d.Val())
	}
	if d.NextBlock(0) {
		return d.Errf("%s: unexpected block", place)
	}
	return nil
}

// String returns a parser for a word with exactly one argument.
func String(target *string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word := d.Val()
		if !d.NextArg() {
			return d.Errf("%s: needs a value", word)
		}
		*target = d.Val()
		return nil
	}
}

// Strings returns a parser for a word with one argument or more, appended to
// the target.
func Strings(target *[]string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word := d.Val()
		args := d.RemainingArgs()
		if len(args) == 0 {
			return d.Errf("%s: needs at least one value", word)
		}
		*target = append(*target, args...)
		return nil
	}
}

// Flag returns a parser for a word without arguments.
func Flag(target *bool) func(*caddyfile.Dispenser) error {
	return func(*caddyfile.Dispenser) error {
		*target = true
		return nil
	}
}

// Duration returns a parser for a word with one duration, for example 50ms,
// 24h or 90d. It must be positive.
func Duration(target *caddy.Duration) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word, text := d.Val(), ""
		if err := String(&text)(d); err != nil {
			return err
		}
		v, err := caddy.ParseDuration(text)
		if err != nil || v <= 0 {
			return d.Errf("%s %q: must be a positive duration such as 50ms, 24h or 90d", word, text)
		}
		*target = caddy.Duration(v)
		return nil
	}
}

// Count returns a parser for a word with one whole number from min up.
func Count[T int | int64](target *T, minimum T) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word, text := d.Val(), ""
		if err := String(&text)(d); err != nil {
			return err
		}
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil || T(v) < minimum || int64(T(v)) != v {
			return d.Errf("%s %q: must be a whole number of at least %d", word, text, minimum)
		}
		*target = T(v)
		return nil
	}
}

// OneOf returns a parser for a word with one argument out of a list.
func OneOf(target *string, values ...string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word := d.Val()
		if err := String(target)(d); err != nil {
			return err
		}
		if !slices.Contains(values, *target) {
			return d.Errf("%s %q: must be one of %s", word, *target, strings.Join(values, ", "))
		}
		return nil
	}
}

// Size returns a parser for a word with one size in bytes: a number with an
// optional unit (KB, MB, GB of 1000; KiB, MiB, GiB of 1024).
func Size(target *int64) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word, text := d.Val(), ""
		if err := String(&text)(d); err != nil {
			return err
		}
		v, err := ParseSize(text)
		if err != nil {
			return d.Errf("%s %q: %v", word, text, err)
		}
		*target = v
		return nil
	}
}

// ParseSize reads a size such as 512, 64KB or 20GiB as bytes.
func ParseSize(text string) (int64, error) {
	units := []struct {
		suffix string
		factor int64
	}{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
		{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
	}
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err == nil && v > 0 && v <= (1<<62)/u.factor {
			return v * u.factor, nil
		}
		break
	}
	return 0, errors.New("must be a positive size such as 512KB, 10MiB or 20GiB")
}

// ParseDuration is caddy.ParseDuration for values that must be positive.
func ParseDuration(text string) (time.Duration, error) {
	v, err := caddy.ParseDuration(text)
	if err != nil || v <= 0 {
		return 0, errors.New("must be a positive duration such as 50ms, 24h or 90d")
	}
	return v, nil
}

// Place names where d stands, for example Caddyfile:12.
func Place(d *caddyfile.Dispenser) string {
	return d.File() + ":" + strconv.Itoa(d.Line())
}
