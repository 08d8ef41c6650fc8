package redistest

import "syscall"

// procAttr lets the server die with the test, even a test that is killed.
func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
