package rbac

// Source offers the configured roles.
type Source interface {
	Roles() *Roles
}
