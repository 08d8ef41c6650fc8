//go:build race

package reader_test

// largeLines is less here, because the race detector makes JSON slow.
const largeLines = 50_000
