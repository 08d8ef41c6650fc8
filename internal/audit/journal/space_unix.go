//go:build linux || darwin || freebsd

package journal

import "syscall"

// Space is how many bytes an unprivileged process may still write below dir.
func (osFiles) Space(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil //nolint:gosec,unconvert // The types differ between systems.
}
