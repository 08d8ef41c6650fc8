//go:build !linux

package sinktest

import (
	"os"
	"syscall"
)

// fastShutdown ends PostgreSQL.
var fastShutdown = os.Interrupt

func attributes() *syscall.SysProcAttr { return nil }

func postgresOwner(string) (*syscall.SysProcAttr, error) { return nil, nil }
