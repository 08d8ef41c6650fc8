package syslog

import "github.com/moat-gateway/moat/internal/audit/follow"

// Frame returns the line as it is sent.
func (s *Sink) Frame(line follow.Line) ([]byte, error) { return s.format.append(nil, line) }
