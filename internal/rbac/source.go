package rbac

import "crypto/sha256"

// Source offers the configured roles, and what keeps a policy current when
// roles or rules stand in files of their own.
type Source interface {
	// Roles are the roles in force now.
	Roles() *Roles
	// Depend names somebody who built something from the roles; see Live.Depend.
	Depend(prepare func(*Roles) (commit func(), err error))
	// WatchRules has a rules file watched. Sum is the SHA-256 of the content in
	// force. Prepare is asked with a new content and returns what puts it in
	// force; that is called only if all who use the file agree. Neither is ever
	// called twice at once, nor while roles are replaced.
	WatchRules(path string, sum [sha256.Size]byte, prepare func(data []byte) (Changes, func(), error))
}
