//go:build !linux

package syslog

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// unacknowledged is not known here. A receiver that closes for reasons of its
// own at the very moment of a delivery is then noticed by its reset only.
func unacknowledged(*net.TCPConn) bool { return false }

// silent reports whether nothing can be read at once. What the receiver says is
// read, and ends the connection.
func silent(l *link) (bool, error) {
	if err := l.socket.SetReadDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
		return false, err
	}
	n, err := l.stream.Read(make([]byte, 1))
	late := errors.Is(err, os.ErrDeadlineExceeded)
	if n > 0 {
		err = errSpoke
	}
	if late || errors.Is(err, io.EOF) { // end will say how it ended
		err = nil
	}
	return late, errors.Join(err, l.socket.SetReadDeadline(time.Time{}))
}
