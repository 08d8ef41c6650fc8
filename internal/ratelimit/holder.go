package ratelimit

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"sync/atomic"
)

var (
	holders atomic.Uint64
	process = processName()
)

// NewHolder names somebody who takes places, unlike any other name here and on
// other instances.
func NewHolder() string {
	return process + strconv.FormatUint(holders.Add(1), 36)
}

func processName() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // Never fails; see crypto/rand.
	return hex.EncodeToString(b[:]) + "-"
}
