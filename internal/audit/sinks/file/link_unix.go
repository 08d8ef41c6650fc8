//go:build unix

package file

import "syscall"

// noFollow makes the opening of a link fail.
const noFollow = syscall.O_NOFOLLOW
