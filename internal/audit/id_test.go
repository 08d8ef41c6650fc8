package audit_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/audit"
)

func TestIDIsAUUIDOfVersion7(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := make(map[string]bool)
	for range 10000 {
		id := audit.NewID(moment)
		if !form.MatchString(id) {
			t.Fatalf("%q", id)
		}
		if seen[id] {
			t.Fatalf("%q came twice", id)
		}
		seen[id] = true
	}
}

func TestIDBeginsWithItsMillisecond(t *testing.T) {
	for name, at := range map[string]time.Time{
		"now": moment, "1970": time.UnixMilli(0), "the last": time.UnixMilli(1<<48 - 1),
	} {
		id := audit.NewID(at)
		ms, err := strconv.ParseInt(strings.ReplaceAll(id[:13], "-", ""), 16, 64)
		if err != nil || ms != at.UnixMilli() {
			t.Errorf("%s: %s holds %d, want %d", name, id, ms, at.UnixMilli())
		}
	}
	if id := audit.NewID(time.UnixMilli(-1)); !strings.HasPrefix(id, "00000000-0000-7") {
		t.Errorf("before 1970: %s", id)
	}
}
