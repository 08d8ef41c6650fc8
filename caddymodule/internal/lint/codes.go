package lint

import (
	"maps"
	"slices"
)

// Code is the stable name of one kind of finding.
type Code string

// The codes.
const (
	ResponderWithoutGate    Code = "responder-without-gate"
	ProxyWithoutSeal        Code = "proxy-without-seal"
	ErrorRouteByPath        Code = "error-route-by-path"
	GateBehindMatcher       Code = "gate-behind-matcher"
	GateWithoutTLS          Code = "gate-without-tls"
	TLSBelow13              Code = "tls-below-1-3"
	StrictSNIHostOff        Code = "strict-sni-host-off"
	TrustedProxiesNotStrict Code = "trusted-proxies-not-strict"
	EarlyDataOn             Code = "early-data-on"
	AdminOnTCP              Code = "admin-on-tcp"
	NoGracePeriod           Code = "no-grace-period"
	UnreachableRule         Code = "unreachable-rule"
	PermissionWithoutRole   Code = "permission-without-role"
	RoleWithoutPermissions  Code = "role-without-permissions"
	OwnerWithoutOwn         Code = "owner-without-own"
	PolicyDoesNotLoad       Code = "policy-does-not-load"
	PolicyFileUnreadable    Code = "policy-file-unreadable"
	LimitNeverBites         Code = "limit-never-bites"
	LimitKeyFromCaller      Code = "limit-key-from-caller"
	NoLimitForAnonymous     Code = "no-limit-for-anonymous"
	NoAudit                 Code = "no-audit"
	OnErrorOpen             Code = "on-error-open"
	OnFullOpen              Code = "on-full-open"
	ShadowMode              Code = "shadow-mode"
	InsecureSetting         Code = "insecure-setting"
)

// hints say how each kind of finding is mended.
var hints = map[Code]string{
	ResponderWithoutGate: "put the `moat` directive into the site; in a composed route, moat_guard and moat_rbac in front; " +
		"bind what is for this machine only to 127.0.0.1",
	ProxyWithoutSeal:  "write `transport moat` into the block of the reverse_proxy",
	ErrorRouteByPath:  "write `rewrite * /error.html` in front of it in handle_errors: a path that the request cannot choose",
	GateBehindMatcher: "guard the whole site with `moat` and say in rules what is open, or take the matcher off",
	GateWithoutTLS:    "give the site a name without http://, or see to it that only the TLS terminator can connect",
	TLSBelow13: "write `tls { protocols tls1.3 }` into every site, and a catch-all `https://` site with it " +
		"and `abort`, because the adapter adds a policy with Caddy's defaults",
	StrictSNIHostOff:        "write `strict_sni_host on` into `servers` of the global options",
	TrustedProxiesNotStrict: "write `trusted_proxies_strict` beside `trusted_proxies`",
	EarlyDataOn:             "write `0rtt off` into `servers` of the global options, or leave h3 out of `protocols`",
	AdminOnTCP:              "write `admin unix//run/moat/admin.sock|0600` or `admin off` into the global options",
	NoGracePeriod:           "write `grace_period 10s` into the global options",
	UnreachableRule:         "remove the rule, or one of those that decide before it",
	PermissionWithoutRole:   "grant the permission to a role, or correct its spelling",
	RoleWithoutPermissions:  "name a permission or a role to inherit, or remove the role",
	OwnerWithoutOwn:         "grant `.own` instead of the permission to the roles that are meant to reach only what is theirs, or drop owner=",
	PolicyDoesNotLoad:       "`moat validate` names every fault",
	PolicyFileUnreadable:    "correct the path, or the file",
	LimitNeverBites:         "remove the limit, or change what keeps it from refusing anything",
	LimitKeyFromCaller:      "add a key that the caller cannot choose: ip, user, tenant or session",
	NoLimitForAnonymous:     "write `limit default` into the site's `moat` block",
	NoAudit:                 "write an `audit` block with a journal into the global `moat` block",
	OnErrorOpen:             "use `on_error local`, or `closed`",
	OnFullOpen:              "leave `on_full` out, or write `on_full closed`",
	ShadowMode:              "remove the word when what was observed is what should happen",
	InsecureSetting:         "remove the word; docs say what it gives up",
}

// Codes returns every code, sorted.
func Codes() []Code { return slices.Sorted(maps.Keys(hints)) }
