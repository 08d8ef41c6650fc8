package policyfile

import (
	"github.com/moat-gateway/moat/internal/filewatch"
	"github.com/moat-gateway/moat/internal/rbac"
)

// Interval is how often policy files are looked at.
const Interval = filewatch.Interval

type (
	// Watched is one use of a policy file whose content is in force.
	Watched = filewatch.Watched[rbac.Changes]
	// Outcome is what became of a changed policy file.
	Outcome = filewatch.Outcome[rbac.Changes]
	// Watcher looks at policy files and has changed ones applied. A file that
	// several use is taken by all of them or by none.
	Watcher = filewatch.Watcher[rbac.Changes]
)

// Read reads a policy file, at most MaxSize of it and a byte.
func Read(path string) ([]byte, error) { return filewatch.Read(path, MaxSize) }
