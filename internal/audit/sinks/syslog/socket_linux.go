package syslog

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// unacknowledged reports whether the other side's system has not acknowledged
// all that was sent, a closing included. It counts as such when the question
// fails.
func unacknowledged(conn *net.TCPConn) bool {
	left := -1
	ask(conn, func(fd int) {
		if n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ); err == nil {
			left = n
		}
	})
	return left != 0
}

// silent reports whether there is nothing to read: no data, no end, no error. An
// error is told once only, so it is returned.
func silent(l *link) (bool, error) {
	err := net.ErrClosed
	ask(l.socket.TCPConn, func(fd int) {
		_, _, err = unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	if errors.Is(err, unix.EAGAIN) {
		return true, nil
	}
	return false, err
}

// ask calls f with the descriptor, once and without waiting, or not at all when
// the connection is closed.
func ask(conn *net.TCPConn, f func(fd int)) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { f(int(fd)) })
}
