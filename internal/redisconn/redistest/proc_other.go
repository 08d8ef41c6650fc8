//go:build !linux

package redistest

import "syscall"

// procAttr cannot tie the server's life to the test's here; Cleanup has to do.
func procAttr() *syscall.SysProcAttr { return nil }
