package rbac_test

import (
	"testing"

	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/rbac"
)

// user is a caller of the first issuer.
func user(id, tenant string, roles ...string) *identity.Principal {
	return identity.Authenticated(identity.Principal{ID: id, Tenant: tenant, Roles: roles, SharesIDs: true})
}

// foreign is a caller whose issuer counts identifiers of its own.
func foreign(id, tenant string, roles ...string) *identity.Principal {
	return identity.Authenticated(identity.Principal{ID: id, Tenant: tenant, Roles: roles})
}

// impostor claims to be somebody, and nobody vouched for it.
func impostor(id, tenant string, roles ...string) *identity.Principal {
	return &identity.Principal{ID: id, Tenant: tenant, Roles: roles, SharesIDs: true}
}

func testRoles(t testing.TB) *rbac.Roles {
	return roles(t,
		rbac.RoleConfig{Name: "superadmin", Scope: "global", Permissions: []string{"*"}},
		role("admin", "users.*", "documents:*", "settings.read"),
		role("user", "documents.own", "files.own", "profile.read"),
		role("guest", "documents.read", "meetings.join"),
		role("reader", "settings.read"),
		role("writer", "settings.write"),
		rbac.RoleConfig{Name: "auditor", Scope: "global", Permissions: []string{"audit.read"}},
		rbac.RoleConfig{Name: "local super", Inherit: []string{"superadmin"}},
		rbac.RoleConfig{Name: "global user", Scope: "global", Inherit: []string{"user"}},
		role("deep", "org.documents.own"),
		role("plain", "own"),
	)
}

func TestDecisions(t *testing.T) {
	const (
		allow = rbac.Allow
		deny  = rbac.Deny
	)
	anonymous := identity.Anonymous
	p := policy(t, testRoles(t),
		"GET /healthz public",
		"* /internal/** deny",
		"* /me authenticated",
		"* /home/{id} authenticated owner={id}",
		"* /room/{t} authenticated tenant={t}",
		"* /desk/{t}/{id} authenticated owner={id} tenant={t}",
		"GET /documents documents.read",
		"* /settings settings.read settings.write",
		"POST /reports reports.create|documents.write",
		"* /users/{uid}/files/** files.write owner={uid}",
		"* /users/{uid}/own files.own owner={uid}",
		"* /own files.own",
		"* /users/{uid}/all files owner={uid}",
		"* /users/{uid}/both files.read profile.read owner={uid}",
		"* /users/{uid}/either settings.write|files.read owner={uid}",
		"* /unowned/{uid} files.write",
		"* /orgs/{org}/documents documents.read tenant={org}",
		"* /orgs/{org}/audit audit.read tenant={org}",
		"* /orgs/{org}/users/{uid} files.write owner={uid} tenant={org}",
		"* /deep/{uid} org.documents.read owner={uid}",
		"* /shallow/{uid} org.other owner={uid}",
		"* /everything *",
		"* /all-documents documents.*",
	)
	for _, row := range []struct {
		name      string
		path      string
		who       *identity.Principal
		effect    rbac.Effect
		reason    string
		anonymous bool
	}{
		{"public, nobody", "GET /healthz", nil, allow, "rbac.public", false},
		{"public, somebody", "GET /healthz", user("u", ""), allow, "rbac.public", false},
		{"public by HEAD", "HEAD /healthz", nil, allow, "rbac.public", false},
		{"no rule, nobody", "GET /nowhere", nil, deny, "rbac.no-rule", false},
		{"no rule, superadmin", "GET /nowhere", user("u", "", "superadmin"), deny, "rbac.no-rule", false},
		{"no rule for the method", "POST /healthz", user("u", "", "superadmin"), deny, "rbac.no-rule", false},
		{"deny, superadmin", "GET /internal/x", user("u", "", "superadmin"), deny, "rbac.deny-rule", false},
		{"deny, nobody", "GET /internal", nil, deny, "rbac.deny-rule", true},
		{"deny, anonymous with a role", "GET /internal", anonymous("superadmin"), deny, "rbac.deny-rule", true},

		{"authenticated", "GET /me", user("u", ""), allow, "rbac.authenticated", false},
		{"authenticated, foreign", "GET /me", foreign("u", ""), allow, "rbac.authenticated", false},
		{"authenticated, nobody", "GET /me", nil, deny, "rbac.no-identity", true},
		{"authenticated, zero", "GET /me", &identity.Principal{}, deny, "rbac.no-identity", true},
		{"authenticated, anonymous with a role", "GET /me", anonymous("superadmin"), deny, "rbac.no-identity", true},
		{"authenticated, impostor", "GET /me", impostor("u", "t", "superadmin"), deny, "rbac.no-identity", true},

		{"own home", "GET /home/u-1", user("u-1", ""), allow, "rbac.owner", false},
		{"own home, escaped", "GET /home/a%20b", user("a b", ""), allow, "rbac.owner", false},
		{"another's home", "GET /home/u-2", user("u-1", ""), deny, "rbac.not-owner", false},
		{"another's home, superadmin", "GET /home/u-2", user("u-1", "", "superadmin"), deny, "rbac.not-owner", false},
		{"home, prefix", "GET /home/u-1x", user("u-1", ""), deny, "rbac.not-owner", false},
		{"home, case", "GET /home/U-1", user("u-1", ""), deny, "rbac.not-owner", false},
		{"home, foreign", "GET /home/u-1", foreign("u-1", ""), deny, "rbac.foreign-issuer", false},
		{"home, impostor", "GET /home/u-1", impostor("u-1", ""), deny, "rbac.no-identity", true},

		{"own room", "GET /room/t", user("u", "t"), allow, "rbac.authenticated", false},
		{"another's room", "GET /room/x", user("u", "t"), deny, "rbac.wrong-tenant", false},
		{"room without a tenant", "GET /room/t", user("u", ""), deny, "rbac.wrong-tenant", false},
		{"another's room, global role", "GET /room/x", user("u", "t", "auditor"), allow, "rbac.authenticated", false},
		{"another's room, role that is not configured", "GET /room/x", user("u", "t", "ghost"), deny, "rbac.wrong-tenant", false},
		{"another's room, inherited from a global role", "GET /room/x", user("u", "t", "local super"), deny, "rbac.wrong-tenant", false},
		{"room, foreign", "GET /room/t", foreign("u", "t"), deny, "rbac.foreign-issuer", false},
		{"room, foreign with a global role", "GET /room/t", foreign("u", "x", "auditor"), allow, "rbac.authenticated", false},
		{"room, anonymous with a global role", "GET /room/t", anonymous("auditor"), deny, "rbac.no-identity", true},
		{"own desk", "GET /desk/t/u", user("u", "t"), allow, "rbac.owner", false},
		{"own desk elsewhere", "GET /desk/x/u", user("u", "t"), deny, "rbac.wrong-tenant", false},
		{"another's desk here", "GET /desk/t/x", user("u", "t"), deny, "rbac.not-owner", false},

		{"permission by wildcard", "GET /documents", user("u", "", "admin"), allow, "rbac.permission", false},
		{"permission by everything", "GET /documents", user("u", "", "superadmin"), allow, "rbac.permission", false},
		{"permission by the second role", "GET /documents", user("u", "", "ghost", "guest"), allow, "rbac.permission", false},
		{"permission of an anonymous role", "GET /documents", anonymous("guest"), allow, "rbac.permission", false},
		{"own is nothing without an owner", "GET /documents", user("u", "", "user"), deny, "rbac.no-permission", false},
		{"no role", "GET /documents", user("u", ""), deny, "rbac.no-permission", false},
		{"role that is not configured", "GET /documents", user("u", "", "ghost"), deny, "rbac.no-permission", false},
		{"role by another case", "GET /documents", user("u", "", "Admin"), deny, "rbac.no-permission", false},
		{"empty role", "GET /documents", user("u", "", ""), deny, "rbac.no-permission", false},
		{"permission, nobody", "GET /documents", nil, deny, "rbac.no-identity", true},
		{"permission, anonymous without a role", "GET /documents", anonymous(), deny, "rbac.no-identity", true},
		{"permission, wrong anonymous role", "GET /documents", anonymous("reader"), deny, "rbac.no-permission", true},

		{"all words by two roles", "GET /settings", user("u", "", "reader", "writer"), allow, "rbac.permission", false},
		{"first word only", "GET /settings", user("u", "", "reader"), deny, "rbac.no-permission", false},
		{"last word only", "GET /settings", user("u", "", "writer"), deny, "rbac.no-permission", false},
		{"either, second", "POST /reports", user("u", "", "admin"), allow, "rbac.permission", false},
		{"either, none", "POST /reports", user("u", "", "guest"), deny, "rbac.no-permission", false},

		{"own files", "PUT /users/u-1/files/a/b", user("u-1", "", "user"), allow, "rbac.owner", false},
		{"own files, root", "PUT /users/u-1/files", user("u-1", "", "user"), allow, "rbac.owner", false},
		{"own files by the literal permission", "GET /users/u-1/own", user("u-1", "", "user"), allow, "rbac.owner", false},
		{"another's files by the literal permission", "GET /users/u-2/own", user("u-1", "", "user"), deny, "rbac.not-owner", false},
		{"another's files by the literal permission, superadmin", "GET /users/u-2/own", user("u-1", "", "superadmin"), allow, "rbac.permission", false},
		{"literal own permission without an owner", "GET /own", user("u-1", "", "user"), allow, "rbac.permission", false},
		{"literal own permission of another kind", "GET /own", user("u-1", "", "plain", "deep"), deny, "rbac.no-permission", false},
		{"own is below, not the thing itself", "GET /users/u-1/all", user("u-1", "", "user"), deny, "rbac.no-permission", false},
		{"own files and another permission", "GET /users/u-1/both", user("u-1", "", "user"), allow, "rbac.owner", false},
		{"another's files", "PUT /users/u-2/files/a", user("u-1", "", "user"), deny, "rbac.not-owner", false},
		{"another's files, superadmin", "PUT /users/u-2/files/a", user("u-1", "", "superadmin"), allow, "rbac.permission", false},
		{"own files, role without own", "PUT /users/u-1/files/a", user("u-1", "", "guest"), deny, "rbac.no-permission", false},
		{"own files, foreign", "PUT /users/u-1/files/a", foreign("u-1", "", "user"), deny, "rbac.foreign-issuer", false},
		{"own files, impostor", "PUT /users/u-1/files/a", impostor("u-1", "", "user"), deny, "rbac.not-owner", true},
		{"own files, anonymous role", "PUT /users/u-1/files/a", anonymous("user"), deny, "rbac.not-owner", true},
		{"own files, broken escape", "PUT /users/%zz/files/a", user("%zz", "", "user"), deny, "rbac.not-owner", false},
		{"either, as the owner", "GET /users/u/either", user("u", "", "user"), allow, "rbac.owner", false},
		{"either, direct before as the owner", "GET /users/u/either", user("u", "", "user", "writer"), allow, "rbac.permission", false},
		{"route without an owner", "PUT /unowned/u", user("u", "", "user"), deny, "rbac.no-permission", false},
		{"own of two words", "GET /deep/u", user("u", "", "deep"), allow, "rbac.owner", false},
		{"own of two words reaches no higher", "GET /shallow/u", user("u", "", "deep"), deny, "rbac.no-permission", false},
		{"own alone is no wildcard", "GET /deep/u", user("u", "", "plain"), deny, "rbac.no-permission", false},

		{"own tenant", "GET /orgs/t/documents", user("u", "t", "admin"), allow, "rbac.permission", false},
		{"another tenant", "GET /orgs/x/documents", user("u", "t", "admin"), deny, "rbac.wrong-tenant", false},
		{"another tenant, global", "GET /orgs/x/documents", user("u", "t", "superadmin"), allow, "rbac.permission", false},
		{"another tenant, inherited from global", "GET /orgs/x/documents", user("u", "t", "local super"), deny, "rbac.wrong-tenant", false},
		{"own tenant, inherited from global", "GET /orgs/t/documents", user("u", "t", "local super"), allow, "rbac.permission", false},
		{"another tenant, global role of another kind", "GET /orgs/x/documents", user("u", "t", "admin", "auditor"), deny, "rbac.wrong-tenant", false},
		{"another tenant, global role of this kind", "GET /orgs/x/audit", user("u", "t", "admin", "auditor"), allow, "rbac.permission", false},
		{"no tenant", "GET /orgs/t/documents", user("u", "", "admin"), deny, "rbac.wrong-tenant", false},
		{"tenant, foreign", "GET /orgs/t/documents", foreign("u", "t", "admin"), deny, "rbac.foreign-issuer", false},
		{"tenant, foreign and global", "GET /orgs/t/documents", foreign("u", "", "superadmin"), allow, "rbac.permission", false},
		{"tenant, no permission", "GET /orgs/t/documents", user("u", "t", "reader"), deny, "rbac.no-permission", false},
		{"tenant, impostor", "GET /orgs/t/documents", impostor("u", "t", "admin"), deny, "rbac.wrong-tenant", true},
		{"tenant, anonymous role", "GET /orgs/t/documents", anonymous("guest"), deny, "rbac.wrong-tenant", true},
		{"own files in own tenant", "GET /orgs/t/users/u", user("u", "t", "user"), allow, "rbac.owner", false},
		{"own files in another tenant", "GET /orgs/x/users/u", user("u", "t", "user"), deny, "rbac.wrong-tenant", false},
		{"own files in another tenant, global", "GET /orgs/x/users/u", user("u", "t", "global user"), allow, "rbac.owner", false},
		{"another's files in own tenant", "GET /orgs/t/users/x", user("u", "t", "user"), deny, "rbac.not-owner", false},
		{"owner by one role, scope by another", "GET /orgs/x/users/u", user("u", "t", "user", "auditor"), deny, "rbac.wrong-tenant", false},

		{"everything", "GET /everything", user("u", "", "superadmin"), allow, "rbac.permission", false},
		{"everything below is not everything", "GET /everything", user("u", "", "admin"), deny, "rbac.no-permission", false},
		{"all below", "GET /all-documents", user("u", "", "admin"), allow, "rbac.permission", false},
		{"one below is not all below", "GET /all-documents", user("u", "", "guest"), deny, "rbac.no-permission", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			method, path := cut(row.path)
			d := p.Decide(p.Lookup(method, path), row.who, nil)
			if d.Effect != row.effect || d.Reason != row.reason || d.Anonymous != row.anonymous {
				t.Errorf("got %+v", d)
			}
			if d.Shadowed || d.Allowed() != (row.effect == allow) {
				t.Errorf("got %+v", d)
			}
			granted := d.Reason == "rbac.permission" || d.Reason == "rbac.owner" && len(row.who.Roles) > 0
			if (d.Role != "" && d.Permission != "") != granted {
				t.Errorf("granted by %q with %q", d.Role, d.Permission)
			}
		})
	}
}

func cut(request string) (method, path string) {
	for i := range len(request) {
		if request[i] == ' ' {
			return request[:i], request[i+1:]
		}
	}
	return request, ""
}

func TestDecisionNamesWhatGranted(t *testing.T) {
	p := policy(t, testRoles(t),
		"* /users/{uid} settings.read files.read|documents:write owner={uid}",
		"* /reports reports.create|documents.write",
	)
	d := p.Decide(p.Lookup("GET", "/users/u"), user("u", "", "ghost", "reader", "user"), nil)
	if d.Reason != rbac.ReasonOwner || d.Role != "user" || d.Permission != "files.read" {
		t.Errorf("%+v", d)
	}
	d = p.Decide(p.Lookup("GET", "/reports"), user("u", "", "user", "admin"), nil)
	if d.Reason != rbac.ReasonPermission || d.Role != "admin" || d.Permission != "documents.write" {
		t.Errorf("%+v", d)
	}
	d = p.Decide(p.Lookup("GET", "/users/u"), user("u", "", "user", "admin"), nil)
	if d.Reason != rbac.ReasonPermission || d.Role != "admin" || d.Permission != "settings.read" {
		t.Errorf("%+v", d)
	}
}

func TestEmptyEqualsNothing(t *testing.T) {
	p := policy(t, testRoles(t),
		"* /home/{id} authenticated owner={id}",
		"* /room/{t} authenticated tenant={t}",
		"* /files/{id} files.read owner={id}",
	)
	nameless := identity.Authenticated(identity.Principal{ID: "u", Roles: []string{"user"}, SharesIDs: true})
	nameless.ID = ""
	for _, path := range []string{"/home/%", "/room/%", "/files/%", "/home/%00", "/room/", "/home//"} {
		for _, who := range []*identity.Principal{nameless, identity.Anonymous("user"), nil, user("u", "", "user")} {
			if d := p.Decide(p.Lookup("GET", path), who, nil); d.Allowed() {
				t.Errorf("%s: %+v", path, d)
			}
		}
	}
}

func TestShadowRefusesNothingAndSaysWhatItWouldHave(t *testing.T) {
	configs := ruleConfigs(t, "* /a documents.read", "* /b deny", "* /c public")
	for i := range configs {
		configs[i].Shadow = true
	}
	p, err := rbac.NewPolicy(rbac.PolicyConfig{Rules: configs}, testRoles(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		path     string
		who      *identity.Principal
		reason   string
		shadowed bool
	}{
		{"/a", user("u", "", "reader"), rbac.ReasonNoPermission, true},
		{"/a", nil, rbac.ReasonNoIdentity, true},
		{"/a", user("u", "", "guest"), rbac.ReasonPermission, false},
		{"/b", user("u", ""), rbac.ReasonDenyRule, true},
		{"/c", nil, rbac.ReasonPublic, false},
	} {
		d := p.Decide(p.Lookup("GET", row.path), row.who, nil)
		if !d.Allowed() || d.Reason != row.reason || d.Shadowed != row.shadowed {
			t.Errorf("%s: %+v", row.path, d)
		}
	}
	if d := p.Decide(p.Lookup("GET", "/d"), nil, nil); d.Allowed() || d.Shadowed {
		t.Errorf("a path without a rule is shadowed: %+v", d)
	}
}

func TestTheZeroDecisionRefuses(t *testing.T) {
	var d rbac.Decision
	if d.Allowed() || d.Effect != rbac.Deny {
		t.Errorf("%+v", d)
	}
}

func TestWithoutRolesPermissionsAreGrantedToNobody(t *testing.T) {
	p := policy(t, nil, "* /a documents.read")
	for _, who := range []*identity.Principal{nil, user("u", "t", "admin"), identity.Anonymous("admin")} {
		if d := p.Decide(p.Lookup("GET", "/a"), who, nil); d.Allowed() {
			t.Errorf("%+v", d)
		}
	}
}

// usual is a role table as applications have them, the rules an operator would
// write for it, and who passes.
type usual struct {
	roles []rbac.RoleConfig
	rules []string
	rows  []usualRow
}

type usualRow struct {
	request string
	// passes are the roles of user "me" in tenant "home" that pass; all others
	// of the table must be refused.
	passes []string
}

func (u usual) run(t *testing.T) {
	t.Helper()
	table := roles(t, u.roles...)
	p := policy(t, table, u.rules...)
	for _, row := range u.rows {
		for _, name := range table.Names() {
			want := false
			for _, passes := range row.passes {
				want = want || passes == name
			}
			method, path := cut(row.request)
			if d := p.Decide(p.Lookup(method, path), user("me", "home", name), nil); d.Allowed() != want {
				t.Errorf("%s by %s: %+v", row.request, name, d)
			}
		}
	}
}

func TestACollaborationSuite(t *testing.T) {
	usual{
		roles: []rbac.RoleConfig{
			{Name: "superadmin", Scope: "global", Permissions: []string{"*"}},
			role("admin", "users.*", "documents.*", "settings.read"),
			role("user", "documents.own", "files.own"),
			role("guest", "documents.read", "meetings.join"),
		},
		rules: []string{
			"GET /documents/{id} documents.read",
			"GET,PUT /users/{uid}/documents/** documents.write owner={uid}",
			"GET,PUT /users/{uid}/files/** files.write owner={uid}",
			"DELETE /users/{uid} users.delete",
			"GET /settings settings.read", "PUT /settings settings.write",
			"POST /meetings/{id}/join meetings.join",
		},
		rows: []usualRow{
			{"GET /documents/1", []string{"superadmin", "admin", "guest"}},
			{"PUT /users/me/documents/1", []string{"superadmin", "admin", "user"}},
			{"PUT /users/you/documents/1", []string{"superadmin", "admin"}},
			{"PUT /users/me/files/1", []string{"superadmin", "user"}},
			{"PUT /users/you/files/1", []string{"superadmin"}},
			{"DELETE /users/me", []string{"superadmin", "admin"}},
			{"GET /settings", []string{"superadmin", "admin"}},
			{"PUT /settings", []string{"superadmin"}},
			{"POST /meetings/1/join", []string{"superadmin", "guest"}},
			{"POST /documents/1", nil},
		},
	}.run(t)
}

func TestAMessagingPlatform(t *testing.T) {
	const global, org, agent, forms, read = "Admin", "Organization Admin", "Agent", "Form Manager", "Read Only"
	usual{
		roles: []rbac.RoleConfig{
			{Name: global, Scope: "global", Permissions: []string{"*"}},
			role(org, "organization:*", "users:*", "forms:*", "leads:read"),
			role(agent, "messages:own", "leads:own"),
			role(forms, "forms:create", "forms:read", "forms:update", "forms:delete"),
			role(read, "organization:read", "forms:read", "leads:read"),
		},
		rules: []string{
			"GET /orgs/{org} organization:read tenant={org}",
			"PUT /orgs/{org} organization:update tenant={org}",
			"GET /orgs/{org}/forms/** forms:read tenant={org}",
			"POST,PUT,DELETE /orgs/{org}/forms/** forms:update|forms:create|forms:delete tenant={org}",
			"GET /orgs/{org}/agents/{agent}/leads leads:read owner={agent} tenant={org}",
			"POST /orgs/{org}/agents/{agent}/messages messages:send owner={agent} tenant={org}",
			"* /orgs/{org}/users/** users:manage tenant={org}",
		},
		rows: []usualRow{
			{"GET /orgs/home", []string{global, org, read}},
			{"GET /orgs/other", []string{global}},
			{"PUT /orgs/home", []string{global, org}},
			{"PUT /orgs/other", []string{global}},
			{"GET /orgs/home/forms/1", []string{global, org, forms, read}},
			{"DELETE /orgs/home/forms/1", []string{global, org, forms}},
			{"DELETE /orgs/other/forms/1", []string{global}},
			{"GET /orgs/home/agents/me/leads", []string{global, org, agent, read}},
			{"GET /orgs/home/agents/you/leads", []string{global, org, read}},
			{"GET /orgs/other/agents/me/leads", []string{global}},
			{"POST /orgs/home/agents/me/messages", []string{global, agent}},
			{"POST /orgs/home/agents/you/messages", []string{global}},
			{"GET /orgs/home/users/1", []string{global, org}},
			{"GET /orgs", nil},
		},
	}.run(t)
}

func TestAProjectPlatform(t *testing.T) {
	usual{
		roles: []rbac.RoleConfig{
			{Name: "Owner", Inherit: []string{"Admin"}, Permissions: []string{"billing.*", "project.delete"}},
			role("Admin", "project.read", "project.write", "files.*"),
			role("Member", "project.read", "files.own"),
		},
		rules: []string{
			"GET /projects/** project.read",
			"PUT /projects/{id} project.write", "DELETE /projects/{id} project.delete",
			"* /billing/** billing.manage",
			"GET /private/{uid}/{file} files.read owner={uid}",
		},
		rows: []usualRow{
			{"GET /projects", []string{"Owner", "Admin", "Member"}},
			{"PUT /projects/1", []string{"Owner", "Admin"}},
			{"DELETE /projects/1", []string{"Owner"}},
			{"GET /billing", []string{"Owner"}},
			{"GET /private/me/a", []string{"Owner", "Admin", "Member"}},
			{"GET /private/you/a", []string{"Owner", "Admin"}},
			{"DELETE /private/me/a", nil},
		},
	}.run(t)
}
