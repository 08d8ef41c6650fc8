package app

import (
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/moat-gateway/moat/caddymodule/internal/dispense"
	"github.com/moat-gateway/moat/internal/rbac"
)

// parseGlobal reads the moat block of the global options:
//
//	moat {
//		redis <url> { ... }
//		limits { ... }
//		issuer <name> { ... }
//		role <name> [<permission>...] [{ ... }]
//		roles_file <file>
//		token_cache <n>|off
//		audit { ... }
//	}
func parseGlobal(d *caddyfile.Dispenser, previous any) (any, error) {
	if previous != nil {
		return nil, d.Err("moat: the global block stands twice; it may stand once")
	}
	a := new(App)
	if err := a.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "moat", Value: caddyconfig.JSON(a, nil)}, nil
}

// UnmarshalCaddyfile reads the block.
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.Errf("moat: unexpected argument %q", d.Val())
	}
	err := dispense.Words{
		"redis":       {Parse: a.parseRedis},
		"limits":      {Parse: a.parseLimits},
		"issuer":      {Parse: a.parseIssuer, Repeats: true},
		"role":        {Parse: a.parseRole, Repeats: true},
		"roles_file":  {Parse: dispense.String(&a.RolesFile)},
		"token_cache": {Parse: a.parseTokenCache},
		"audit":       {Parse: a.parseAudit},
	}.Block(d, "moat")
	a.RolesFileSum = dispense.FileSum(a.RolesFile)
	return err
}

// parseRedis reads:
//
//	redis <url> {
//		username <name>
//		password <secret>
//		timeout <duration>
//		on_error local|open|closed
//		instances <n>
//	}
func (a *App) parseRedis(d *caddyfile.Dispenser) error {
	r := new(Redis)
	a.Redis = r
	if !d.NextArg() {
		return d.Err("redis: needs a URL such as redis://127.0.0.1:6379/0 or unix:///run/redis.sock")
	}
	r.URL = d.Val()
	if d.NextArg() {
		return d.Errf("redis: unexpected argument %q", d.Val())
	}
	return dispense.Words{
		"username":  {Parse: dispense.String(&r.Username)},
		"password":  {Parse: dispense.String(&r.Password)},
		"timeout":   {Parse: dispense.Duration(&r.Timeout)},
		"on_error":  {Parse: dispense.OneOf(&r.OnError, "local", "open", "closed")},
		"instances": {Parse: dispense.Count(&r.Instances, 1)},
	}.Block(d, "redis")
}

// parseLimits reads:
//
//	limits {
//		capacity <n>
//	}
func (a *App) parseLimits(d *caddyfile.Dispenser) error {
	a.Limits = new(Limits)
	if d.NextArg() {
		return d.Errf("limits: unexpected argument %q", d.Val())
	}
	return dispense.Words{"capacity": {Parse: dispense.Count(&a.Limits.Capacity, 1)}}.Block(d, "limits")
}

// parseIssuer reads:
//
//	issuer <name> {
//		iss <value>...
//		audience <value>...
//		discovery | jwks <url|file> | key <pem file>... | secret <secret>
//		algorithms <alg>...
//		typ <type>...
//		leeway <duration>
//		max_lifetime <duration>
//		max_token <size>
//		max_header <size>
//		azp <client>...
//		ignore_headers <member>...
//		claims { id|tenant|roles|session <path>... }
//		role_map <value> <role>
//		may_grant <role>...
//		shares_ids
//		timeout <duration>
//		max_stale <duration>
//		insecure_any_issuer
//		insecure_any_audience
//		insecure_http_jwks
//		insecure_accept_id_tokens
//	}
func (a *App) parseIssuer(d *caddyfile.Dispenser) error {
	i := new(Issuer)
	if !d.NextArg() {
		return d.Err("issuer: needs a name")
	}
	i.Name = d.Val()
	if d.NextArg() {
		return d.Errf("issuer %q: unexpected argument %q", i.Name, d.Val())
	}
	if slices.ContainsFunc(a.Issuers, func(o *Issuer) bool { return o.Name == i.Name }) {
		return d.Errf("issuer %q: stands twice", i.Name)
	}
	a.Issuers = append(a.Issuers, i)
	return dispense.Words{
		"iss":                       {Parse: dispense.Strings(&i.Iss), Repeats: true},
		"audience":                  {Parse: dispense.Strings(&i.Audience), Repeats: true},
		"discovery":                 {Parse: dispense.Flag(&i.Discovery)},
		"jwks":                      {Parse: dispense.String(&i.JWKS)},
		"key":                       {Parse: dispense.Strings(&i.Key), Repeats: true},
		"secret":                    {Parse: appendOne(&i.Secret), Repeats: true},
		"algorithms":                {Parse: dispense.Strings(&i.Algorithms)},
		"typ":                       {Parse: dispense.Strings(&i.Typ)},
		"leeway":                    {Parse: dispense.Duration(&i.Leeway)},
		"max_lifetime":              {Parse: dispense.Duration(&i.MaxLifetime)},
		"max_token":                 {Parse: dispense.Size(&i.MaxToken)},
		"max_header":                {Parse: dispense.Size(&i.MaxHeader)},
		"azp":                       {Parse: dispense.Strings(&i.AZP), Repeats: true},
		"ignore_headers":            {Parse: dispense.Strings(&i.IgnoreHeaders)},
		"claims":                    {Parse: i.parseClaims},
		"role_map":                  {Parse: i.parseRoleMap, Repeats: true},
		"may_grant":                 {Parse: dispense.Strings(&i.MayGrant), Repeats: true},
		"shares_ids":                {Parse: dispense.Flag(&i.SharesIDs)},
		"timeout":                   {Parse: dispense.Duration(&i.Timeout)},
		"max_stale":                 {Parse: dispense.Duration(&i.MaxStale)},
		"insecure_any_issuer":       {Parse: dispense.Flag(&i.InsecureAnyIssuer)},
		"insecure_any_audience":     {Parse: dispense.Flag(&i.InsecureAnyAudience)},
		"insecure_http_jwks":        {Parse: dispense.Flag(&i.InsecureHTTPJWKS)},
		"insecure_accept_id_tokens": {Parse: dispense.Flag(&i.InsecureAcceptIDTokens)},
	}.Block(d, fmt.Sprintf("issuer %q", i.Name))
}

// appendOne is for a word that stands once per value.
func appendOne(target *[]string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		var one string
		if err := dispense.String(&one)(d); err != nil {
			return err
		}
		*target = append(*target, one)
		return nil
	}
}

func (i *Issuer) parseClaims(d *caddyfile.Dispenser) error {
	return dispense.Words{
		"id":      {Parse: dispense.Strings(&i.Claims.ID)},
		"tenant":  {Parse: dispense.Strings(&i.Claims.Tenant)},
		"session": {Parse: dispense.Strings(&i.Claims.Session)},
		"roles": {Parse: func(d *caddyfile.Dispenser) error {
			if err := dispense.Strings(&i.Claims.Roles)(d); err != nil {
				return err
			}
			return dispense.Words{"split": {Parse: dispense.String(&i.Claims.Split)}}.Block(d, "roles")
		}},
	}.Block(d, "claims")
}

func (i *Issuer) parseRoleMap(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Errf("role_map: needs a value of the roles claim and one role, got %d arguments", len(args))
	}
	if i.RoleMap == nil {
		i.RoleMap = make(map[string][]string)
	}
	i.RoleMap[args[0]] = append(i.RoleMap[args[0]], args[1])
	return nil
}

// parseRole reads:
//
//	role <name> [<permission>...] [{
//		scope global
//		permissions <permission>...
//		inherit <role>...
//	}]
func (a *App) parseRole(d *caddyfile.Dispenser) error {
	role := rbac.RoleConfig{Place: dispense.Place(d)}
	if !d.NextArg() {
		return d.Err("role: needs a name")
	}
	role.Name = d.Val()
	role.Permissions = d.RemainingArgs()
	err := dispense.Words{
		"scope":       {Parse: dispense.OneOf(&role.Scope, "global")},
		"permissions": {Parse: dispense.Strings(&role.Permissions), Repeats: true},
		"inherit":     {Parse: dispense.Strings(&role.Inherit), Repeats: true},
	}.Block(d, fmt.Sprintf("role %q", role.Name))
	a.RoleConfigs = append(a.RoleConfigs, role)
	return err
}

// parseAudit reads:
//
//	audit {
//		journal <dir> {
//			fsync <duration>|always
//			keep <duration>
//			max_size <size>
//			reserve <size>|off
//			wait access|security|admin queued|written|synced
//			key <file>
//		}
//		sink <type> <arguments> { ... }
//		instance <name>
//		on_full closed|open
//		record_headers <name>...
//		pseudonymize <key file> ip|user...
//	}
func (a *App) parseAudit(d *caddyfile.Dispenser) error {
	a.Audit = new(Audit)
	return dispense.Words{
		"journal":  {Parse: a.Audit.parseJournal},
		"sink":     {Parse: a.Audit.parseSink, Repeats: true},
		"instance": {Parse: dispense.String(&a.Audit.Instance)},
		"on_full":  {Parse: dispense.OneOf(&a.Audit.OnFull, "closed", "open")},

		"record_headers": {Parse: a.Audit.parseRecordHeaders, Repeats: true},
		"pseudonymize": {Parse: func(d *caddyfile.Dispenser) error {
			if err := a.Audit.parsePseudonymize(d.RemainingArgs()); err != nil {
				return d.WrapErr(err)
			}
			return nil
		}},
	}.Block(d, "audit")
}

// parseRecordHeaders refuses names here already, where the line is known.
func (c *Audit) parseRecordHeaders(d *caddyfile.Dispenser) error {
	if err := dispense.Strings(&c.RecordHeaders)(d); err != nil {
		return err
	}
	for _, name := range c.RecordHeaders {
		if mayCarryCredential(name) {
			return d.Errf("record_headers %q: carries a credential, which is never in an event", name)
		}
	}
	return nil
}

func (c *Audit) parseJournal(d *caddyfile.Dispenser) error {
	j := new(Journal)
	c.Journal = j
	if err := dispense.String(&j.Dir)(d); err != nil {
		return err
	}
	return dispense.Words{
		"fsync":    {Parse: dispense.String(&j.Fsync)},
		"keep":     {Parse: dispense.Duration(&j.Keep)},
		"max_size": {Parse: dispense.Size(&j.MaxSize)},
		"reserve":  {Parse: j.parseReserve},
		"wait":     {Parse: j.parseWait, Repeats: true},
		"key":      {Parse: dispense.String(&j.Key)},
	}.Block(d, "journal")
}

func (j *Journal) parseReserve(d *caddyfile.Dispenser) error {
	var text string
	if err := dispense.String(&text)(d); err != nil {
		return err
	}
	j.Reserve = new(int64)
	if text == "0" || text == "off" {
		return nil
	}
	size, err := dispense.ParseSize(text)
	if err != nil {
		return d.Errf("reserve %q: %v, or off", text, err)
	}
	*j.Reserve = size
	return nil
}

func (j *Journal) parseWait(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Errf("wait: needs a class and queued, written or synced, got %d arguments", len(args))
	}
	if _, twice := j.Wait[args[0]]; twice {
		return d.Errf("wait %s: stands twice", args[0])
	}
	if j.Wait == nil {
		j.Wait = make(map[string]string)
	}
	j.Wait[args[0]] = args[1]
	if _, err := (&Journal{Wait: map[string]string{args[0]: args[1]}}).waits(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// Interface guards.
var (
	_ caddyfile.Unmarshaler = (*App)(nil)
)
