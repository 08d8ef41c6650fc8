//go:build !race

package reader_test

const largeLines = 200_000
