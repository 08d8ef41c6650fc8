package identity_test

import (
	"context"
	"testing"

	"github.com/moat-gateway/moat/internal/identity"
)

func TestNobodyIsKnownUnlessSomebodyVouched(t *testing.T) {
	var none *identity.Principal
	for name, p := range map[string]*identity.Principal{
		"nil":                    none,
		"zero":                   {},
		"a literal with an ID":   {ID: "u-1", Roles: []string{"admin"}},
		"anonymous with a role":  identity.Anonymous("guest"),
		"an empty context's one": identity.From(context.Background()),
	} {
		if p.Known() {
			t.Errorf("%s: Known() = true", name)
		}
	}
	if p := identity.Authenticated(identity.Principal{ID: "u-1"}); !p.Known() {
		t.Error("Authenticated: Known() = false")
	}
}

func TestAuthenticatedNeedsAnID(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Fatal("an empty ID was accepted")
		}
	}()
	identity.Authenticated(identity.Principal{})
}

func TestContextCarriesThePrincipal(t *testing.T) {
	p := identity.Anonymous("guest")
	if got := identity.From(identity.With(context.Background(), p)); got != p {
		t.Fatalf("From = %v, want %v", got, p)
	}
}
