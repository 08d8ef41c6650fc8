package app

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/rbac"
	"github.com/moat-gateway/moat/internal/rbac/policyfile"
)

// policyFiles are the files with roles and rules that this configuration uses.
type policyFiles struct {
	watcher policyfile.Watcher
	sums    []string // "path sha256" of what was read at load

	once  sync.Once
	done  chan struct{}
	ended chan struct{}
}

// watch starts looking at the files. Only the established configuration does:
// one that may still fail must not report anything.
func (f *policyFiles) watch() {
	if len(f.sums) == 0 {
		return
	}
	f.done, f.ended = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(f.ended)
		f.watcher.Run(policyfile.Interval, f.done)
	}()
}

// stop returns when nothing is looked at any more.
func (f *policyFiles) stop() {
	f.once.Do(func() {
		if f.done != nil {
			close(f.done)
			<-f.ended
		}
	})
}

func (f *policyFiles) add(w policyfile.Watched) {
	if sum := w.Path + " " + hex.EncodeToString(w.Sum[:]); !slices.Contains(f.sums, sum) {
		f.sums = append(f.sums, sum)
	}
	f.watcher.Add(w)
}

// Roles are the roles in force now.
func (a *App) Roles() *rbac.Roles { return a.roles.Roles() }

// Depend implements rbac.Source.
func (a *App) Depend(prepare func(*rbac.Roles) (func(), error)) { a.roles.Depend(prepare) }

// WatchRules implements rbac.Source.
func (a *App) WatchRules(path string, sum [sha256.Size]byte, prepare func([]byte) (rbac.Changes, func(), error)) {
	a.files.add(policyfile.Watched{Path: path, Sum: sum, Prepare: prepare})
}

// provisionRoles compiles the roles of the configuration and of its file.
func (a *App) provisionRoles() error {
	a.files.watcher.Report = a.fileChanged
	configs := a.RoleConfigs
	if a.RolesFile != "" {
		path, err := dispense.Expand("roles_file", a.RolesFile)
		if err != nil {
			return err
		}
		data, err := policyfile.Read(path)
		if err != nil {
			return fmt.Errorf("roles_file: %w", err)
		}
		fromFile, err := policyfile.Roles(path, data)
		if err != nil {
			return fmt.Errorf("roles_file: %w", err)
		}
		configs = a.withFile(fromFile)
		a.files.add(policyfile.Watched{Path: path, Sum: sha256.Sum256(data), Prepare: a.rolesPreparer(path, fromFile)})
	}
	roles, err := rbac.NewRoles(configs)
	if err != nil {
		return err
	}
	return a.roles.Replace(roles)
}

func (a *App) withFile(fromFile []rbac.RoleConfig) []rbac.RoleConfig {
	return append(a.RoleConfigs[:len(a.RoleConfigs):len(a.RoleConfigs)], fromFile...)
}

// rolesPreparer returns what prepares a new roles file.
func (a *App) rolesPreparer(path string, inForce []rbac.RoleConfig) func([]byte) (rbac.Changes, func(), error) {
	return func(data []byte) (rbac.Changes, func(), error) {
		fromFile, err := policyfile.Roles(path, data)
		if err != nil {
			return rbac.Changes{}, nil, err
		}
		roles, err := rbac.NewRoles(a.withFile(fromFile))
		if err != nil {
			return rbac.Changes{}, nil, err
		}
		commit, err := a.roles.Prepare(roles)
		return rbac.DiffRoles(inForce, fromFile), func() {
			commit()
			inForce = fromFile
		}, err
	}
}

// fileChanged makes a new content known: it changes who may do what.
func (a *App) fileChanged(o policyfile.Outcome) {
	action, outcome := "policy.loaded", audit.Allow
	if o.Err != nil {
		action, outcome = "policy.rejected", audit.Failure
		a.logger.Error("a changed policy file was refused; the old content stays in force",
			zap.String("file", o.Path), zap.Error(o.Err))
	} else {
		a.logger.Info("a changed policy file is in force", zap.String("file", o.Path),
			zap.Strings("added", few(o.Changes.Added)), zap.Strings("removed", few(o.Changes.Removed)), zap.Strings("changed", few(o.Changes.Changed)))
	}
	a.trail.event(audit.Admin, action, o.Path, outcome, func(d *audit.Details) {
		if o.Sum != [sha256.Size]byte{} {
			d.Set("sha256", hex.EncodeToString(o.Sum[:]))
		}
		if o.Err != nil {
			d.Set("error", o.Err.Error())
			return
		}
		d.Set("added", few(o.Changes.Added))
		d.Set("removed", few(o.Changes.Removed))
		d.Set("changed", few(o.Changes.Changed))
	})
}

// few is the beginning of a list, and how much more there is.
func few(names []string) []string {
	const most = 50
	if len(names) <= most {
		return names
	}
	return append(names[:most:most], fmt.Sprintf("and %d more", len(names)-most))
}
