package rbac

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/caddymodule/internal/moatapp"
	"github.com/moat-gateway/moat/internal/rbac"
	"github.com/moat-gateway/moat/internal/rbac/policyfile"
	"github.com/moat-gateway/moat/internal/rbac/when"
)

// provisionPolicy compiles the rules, those of the file included, and keeps
// them current.
func (h *Handler) provisionPolicy(ctx caddy.Context) error {
	source, err := moatapp.Load[rbac.Source](ctx)
	if err != nil {
		return err
	}
	if h.LoginURL != "" {
		if h.LoginURL, err = dispense.Expand("login_url", h.LoginURL); err != nil {
			return err
		}
	}
	var path string
	var data []byte
	if h.RulesFile != "" {
		if path, err = dispense.Expand("rules_file", h.RulesFile); err != nil {
			return err
		}
		if data, err = policyfile.Read(path); err != nil {
			return fmt.Errorf("rules_file: %w", err)
		}
		if h.fileRules, err = policyfile.Rules(path, data); err != nil {
			return fmt.Errorf("rules_file: %w", err)
		}
	}
	policy, err := h.compile(h.fileRules, source.Roles())
	if err != nil {
		return err
	}
	h.policy.Store(policy)
	h.warnShadow(policy)
	source.Depend(func(roles *rbac.Roles) (func(), error) {
		policy, err := h.compile(h.fileRules, roles)
		return func() { h.policy.Store(policy) }, err
	})
	if path != "" {
		source.WatchRules(path, sha256.Sum256(data), func(data []byte) (rbac.Changes, func(), error) {
			return h.prepareRules(path, data, source.Roles())
		})
	}
	return nil
}

// open reports whether everybody gets through.
func open(m rbac.Match) bool { return m.Public() && m.Rule().When == "" }

// prepareRules compiles the policy with a new rules file.
func (h *Handler) prepareRules(path string, data []byte, roles *rbac.Roles) (rbac.Changes, func(), error) {
	rules, err := policyfile.Rules(path, data)
	if err != nil {
		return rbac.Changes{}, nil, err
	}
	policy, err := h.compile(rules, roles)
	if err != nil {
		return rbac.Changes{}, nil, err
	}
	return rbac.DiffRules(h.fileRules, rules), func() {
		h.fileRules = rules
		h.policy.Store(policy)
		h.warnShadow(policy)
	}, nil
}

func (h *Handler) warnShadow(policy *rbac.Policy) {
	for _, rule := range policy.Rules() {
		if rule.Shadow {
			h.logger.Warn("a rule is in shadow: it is recorded and refuses nothing",
				zap.String("rule", rule.String()), zap.String("place", rule.Place))
		}
	}
}

func (h *Handler) compile(fileRules []rbac.RuleConfig, roles *rbac.Roles) (*rbac.Policy, error) {
	policy, err := rbac.NewPolicy(rbac.PolicyConfig{
		Rules:             append(h.Rules[:len(h.Rules):len(h.Rules)], fileRules...),
		PreflightUpstream: h.Preflight == "upstream",
		CaseInsensitive:   h.CaseInsensitive,
		Conditions:        when.Compile,
	}, roles)
	if err != nil {
		return nil, err
	}
	// What is no path moat_jwt tells.
	if path, _, _ := strings.Cut(h.LoginURL, "?"); strings.HasPrefix(path, "/") && !open(policy.Lookup(http.MethodGet, path)) {
		return nil, fmt.Errorf("rbac: login_url %q: its route must be public and without a condition, for example `GET %s public`", h.LoginURL, path)
	}
	if !h.AnonymousOnly {
		return policy, nil
	}
	var errs []error
	for _, rule := range policy.Rules() {
		if rule.NeedsIdentity() {
			errs = append(errs, fmt.Errorf("rbac: the rule %q at %s needs somebody, but without a jwt line nobody can be known", rule, rule.Place))
		}
	}
	return policy, errors.Join(errs...)
}
