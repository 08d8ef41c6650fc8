package syslog_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// message is what a receiver reads.
type message struct {
	facility, severity       int
	at                       time.Time // zero for "-"
	host, app, process, kind string
	data                     map[string]map[string]string
	text                     string
}

// The grammar of RFC 5424, section 6, as its ABNF stands there.
var (
	header = regexp.MustCompile(`^<(0|[1-9][0-9]{0,2})>1 (-|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2}))` +
		` ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) `)
	element = regexp.MustCompile(`^\[([!#-<>-\\^-~]{1,32})`)
	param   = regexp.MustCompile(`^ ([!#-<>-\\^-~]{1,32})="((?:[^"\\\]]|\\["\\\]])*)"`)
	escape  = regexp.MustCompile(`\\(["\\\]])`)
)

// readFrame reads one message by its length (RFC 5425, section 4.3). It returns
// io.EOF between two messages only.
func readFrame(r *bufio.Reader) (string, error) {
	digits, err := r.ReadString(' ')
	if errors.Is(err, io.EOF) && digits == "" {
		return "", io.EOF
	}
	digits = strings.TrimSuffix(digits, " ")
	size, numErr := strconv.Atoi(digits)
	if err != nil || numErr != nil || size < 1 || digits != strconv.Itoa(size) {
		return "", fmt.Errorf("length %.20q: %w", digits, errors.Join(io.ErrUnexpectedEOF, err))
	}
	frame := make([]byte, size)
	if _, err := io.ReadFull(r, frame); err != nil {
		return "", fmt.Errorf("a message of %d bytes: %w", size, io.ErrUnexpectedEOF)
	}
	return string(frame), nil
}

func parseMessage(frame string) (m message, err error) {
	h := header.FindStringSubmatch(frame)
	if h == nil {
		return m, fmt.Errorf("header of %.200q", frame)
	}
	priority, err := strconv.Atoi(h[1])
	if err != nil || priority > 191 {
		return m, fmt.Errorf("priority %q", h[1])
	}
	m = message{facility: priority / 8, severity: priority % 8, host: h[3], app: h[4], process: h[5], kind: h[6]}
	if h[2] != "-" {
		if m.at, err = time.Parse(time.RFC3339Nano, h[2]); err != nil {
			return m, err
		}
	}
	rest := frame[len(h[0]):]
	if m.data, rest, err = parseData(rest); err != nil {
		return m, err
	}
	text, found := strings.CutPrefix(rest, " ")
	if !found || !utf8.ValidString(text) {
		return m, fmt.Errorf("message %.100q", rest)
	}
	m.text = text
	return m, nil
}

func parseData(rest string) (map[string]map[string]string, string, error) {
	data := map[string]map[string]string{}
	for {
		e := element.FindStringSubmatch(rest)
		if e == nil {
			break
		}
		if rest = rest[len(e[0]):]; data[e[1]] != nil {
			return nil, "", fmt.Errorf("element %q twice", e[1])
		}
		values := map[string]string{}
		for p := param.FindStringSubmatch(rest); p != nil; p = param.FindStringSubmatch(rest) {
			if rest = rest[len(p[0]):]; !utf8.ValidString(p[2]) {
				return nil, "", fmt.Errorf("value %q", p[2])
			}
			values[p[1]] = escape.ReplaceAllString(p[2], "$1")
		}
		end, found := strings.CutPrefix(rest, "]")
		if !found {
			return nil, "", fmt.Errorf("structured data %.100q", rest)
		}
		data[e[1]], rest = values, end
	}
	if len(data) == 0 {
		return nil, "", fmt.Errorf("no structured data: %.100q", rest)
	}
	return data, rest, nil
}
