package rbac_test

import (
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/rbac"
)

var permissionRows = []struct {
	held, wanted string
	granted      bool
}{
	{"documents.read", "documents.read", true},
	{"documents:read", "documents.read", true},
	{"documents.read", "documents:read", true},
	{"a.b:c", "a:b.c", true},
	{"users.*", "users.read", true},
	{"users:*", "users.read.all", true},
	{"users.*", "users.*", true},
	{"users.*", "users.read.*", true},
	{"users.a.*", "users.a.b", true},
	{"*", "users", true},
	{"*", "users.read.all", true},
	{"*", "users.*", true},
	{"*", "*", true},
	{"read", "read", true},
	{"documents.own", "documents.own", true},
	{"form-manager.read_all", "form-manager.read_all", true},

	{"documents.read", "documents.write", false},
	{"documents.read", "documents.read.all", false},
	{"documents.read.all", "documents.read", false},
	{"documents.read", "documents.Read", false},
	{"Documents.*", "documents.read", false},
	{"users.*", "users", false},
	{"users.*", "usersx.read", false},
	{"users.*", "user.read", false},
	{"users.*", "*", false},
	{"users.a.*", "users.b", false},
	{"users.a.*", "users.a", false},
	{"users.read", "users.*", false},
	{"users.*", "x.users.read", false},
	{"documents.own", "documents.read", false},
	{"", "documents.read", false},
	{"", "", false},
	{"*", "", false},
	{"*", ".", false},
	{"*", "a..b", false},
	{"*", "a.", false},
	{"*", ".a", false},
	{"*", "a b", false},
	{"*", "a|b", false},
	{"*", "a.*.c", false},
	{"*", "*.*", false},
	{"*", "ä.b", false},
	{"*", "public", false},
	{"*", "deny", false},
	{"*", "authenticated", false},
	{"**", "a", false},
	{"*.read", "users.read", false},
	{"users*", "users.read", false},
	{"users.*.*", "users.read.all", false},
	{".*", "a", false},
	{"users.r*", "users.read", false},
	{"users.", "users.read", false},
}

func TestPermissionGrantsWhatItSaysAndNothingElse(t *testing.T) {
	for _, row := range permissionRows {
		if got := rbac.Grants(row.held, row.wanted); got != row.granted {
			t.Errorf("Grants(%q, %q) = %v", row.held, row.wanted, got)
		}
	}
	long := strings.Repeat("a", 257)
	if rbac.Grants(long, long) || rbac.Grants("*", long) {
		t.Error("a permission longer than 256 bytes is taken")
	}
	if edge := long[:256]; !rbac.Grants(edge, edge) {
		t.Error("a permission of 256 bytes is not taken")
	}
}

// FuzzGrants holds the algebra against its definition on text: equal, or below
// a wildcard, and nothing that is not a permission on either side.
func FuzzGrants(f *testing.F) {
	for _, row := range permissionRows {
		f.Add(row.held, row.wanted)
	}
	f.Fuzz(func(t *testing.T, held, wanted string) {
		got := rbac.Grants(held, wanted)
		h, w := strings.ReplaceAll(held, ":", "."), strings.ReplaceAll(wanted, ":", ".")
		if rbac.Grants(h, w) != got {
			t.Fatalf("%q, %q: : and . differ", held, wanted)
		}
		if got && !rbac.Grants("*", wanted) {
			t.Fatalf("%q, %q: * grants less", held, wanted)
		}
		valid := rbac.Grants(held, held) && rbac.Grants(wanted, wanted)
		below, isWildcard := strings.CutSuffix(h, "*")
		want := valid && (h == w || isWildcard && strings.HasPrefix(w, below))
		if got != want {
			t.Fatalf("Grants(%q, %q) = %v, want %v", held, wanted, got, want)
		}
	})
}
