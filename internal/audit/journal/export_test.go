package journal

// What the tests need to let the disk fail and the process die.

type (
	FileSystem = fileSystem
	File       = file
	OSFiles    = osFiles
)

// OpenWith opens a journal on a disk of the test's own.
func OpenWith(cfg Config, fs FileSystem) (*Journal, error) { return open(cfg, fs) }

// Abandon lets go of the directory as the kernel does for a killed process:
// nothing is flushed, nothing is said.
func (j *Journal) Abandon() error { return j.lock.release() }

// Upkeep is how often old segments are looked for.
const Upkeep = upkeep

// ParseHead reports whether a line can be a line of a trail.
func ParseHead(line []byte) bool {
	_, err := parseHead(line)
	return err == nil
}
