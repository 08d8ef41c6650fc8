package sinktest

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// fastShutdown makes PostgreSQL drop its clients and end.
const fastShutdown = syscall.SIGINT

// attributes let no server outlive the test, nor get the terminal's signals.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// postgresOwner prepares dir for the user as whom PostgreSQL will run: it
// refuses to run as root.
func postgresOwner(dir string) (*syscall.SysProcAttr, error) {
	attr := attributes()
	if os.Geteuid() != 0 {
		return attr, nil
	}
	owner, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("running as root needs the system user postgres: %w", err)
	}
	uid, uidErr := strconv.ParseUint(owner.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(owner.Gid, 10, 32)
	if uidErr != nil || gidErr != nil {
		return nil, fmt.Errorf("user postgres: ids %q, %q are no numbers", owner.Uid, owner.Gid)
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attr, os.Chown(dir, int(uid), int(gid))
}
