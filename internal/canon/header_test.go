package canon_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/canon"
)

func TestHeaderNamesFold(t *testing.T) {
	for name, want := range map[string]string{
		"":                       "",
		"x-user-id":              "x-user-id",
		"X-User-Id":              "x-user-id",
		"X_USER_ID":              "x-user-id",
		"x.user.id":              "x-user-id",
		"X-User_Id.":             "x-user-id-",
		"XUserId":                "xuserid",
		"x-user!id":              "x-user!id",
		strings.Repeat("A_", 99): strings.Repeat("a-", 99),
	} {
		if got := canon.FoldHeader(name); got != want {
			t.Errorf("FoldHeader(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestHeaderSetKnowsEverySpelling(t *testing.T) {
	s := canon.NewHeaderSet("X-User-Id", "x_user_id", "Forwarded", "X-Forwarded-*", "x.forwarded.*", "")
	if got := s.Len(); got != 3 {
		t.Errorf("Len = %d, want 3", got)
	}
	for _, name := range []string{
		"X-User-Id", "x-user-id", "X_User_Id", "x.USER-id", "X-User_Id", "forwarded", "FORWARDED",
		"X-Forwarded-For", "x_forwarded_uri", "X.Forwarded-Prefix", "X-Forwarded-",
	} {
		if !s.Has(name) {
			t.Errorf("Has(%q) = false", name)
		}
	}
	for _, name := range []string{
		"", "X-User", "X-User-Id2", "XUserId", "X-User--Id", "Forwarded-By", "X-Forwarded", "x-forwarde-x", "Authorization",
	} {
		if s.Has(name) {
			t.Errorf("Has(%q) = true", name)
		}
	}
}

func TestHeaderSetHoldsLongNames(t *testing.T) {
	long := strings.Repeat("x-", 200) + "id"
	s := canon.NewHeaderSet(long)
	if !s.Has(strings.ToUpper(long)) || s.Has(long[1:]) {
		t.Error("a name of 402 bytes is not told from others")
	}
}

func TestStripRemovesEverySpellingAndNothingElse(t *testing.T) {
	h := http.Header{
		"X-User-Id": {"1"}, "X_user_id": {"2", "3"}, "x.user.id": {"4"}, "X-FORWARDED-URI": {"/"},
		"X-User": {"5"}, "Authorization": {"6"},
	}
	if got := canon.NewHeaderSet("x-user-id", "x-forwarded-*").StripFrom(h); got != 4 {
		t.Errorf("removed %d keys, want 4", got)
	}
	if len(h) != 2 || h.Get("X-User") != "5" || h.Get("Authorization") != "6" {
		t.Errorf("left %v", h)
	}
}

func TestEmptyHeaderSetsHoldNothing(t *testing.T) {
	var none *canon.HeaderSet
	var zero canon.HeaderSet
	for name, s := range map[string]*canon.HeaderSet{"nil": none, "zero": &zero, "no names": canon.NewHeaderSet()} {
		h := http.Header{"": {"0"}, "X-A": {"1"}}
		if s.Has("X-A") || s.Has("") || s.Len() != 0 || s.StripFrom(h) != 0 || len(h) != 2 || s.StripFrom(nil) != 0 {
			t.Errorf("%s: holds something", name)
		}
	}
}
