package format_test

import (
	"strings"
	"testing"
)

// TestValidatorsSeeWhatIsWrong shows that the checks of the other tests can fail.
func TestValidatorsSeeWhatIsWrong(t *testing.T) {
	checks := validators(t)
	line := lineOf(fullRequest())
	for _, c := range []struct{ format, old, new, want string }{
		{"ocsf", `"class_uid":4002`, `"class_uid":4242`, "unknown class"},
		{"ocsf", `"activity_id":3,`, ``, "activity_id: required and missing"},
		{"ocsf", `"activity_id":3,`, `"activity_id":77,`, "no value of the enumeration"},
		{"ocsf", `"activity_name":"Get"`, `"activity_name":"Put"`, "is called Put"},
		{"ocsf", `"type_uid":400203`, `"type_uid":400204`, "type_uid: 400204"},
		{"ocsf", `"time":`, `"time_ms":`, "time_ms: unknown attribute"},
		{"ocsf", `"status_code":"403"`, `"status_code":403`, "is no string_t"},
		{"ocsf", `"uid":"u-1"`, `"id":"u-1"`, "actor.user.id: unknown attribute"},
		{"ocsf", `"uid":"u-1"`, `"type_id":1`, "none of account, name, uid"},
		{"ocsf", `"ip":"203.0.113.7"`, `"ip":"p:1"`, "is no ip_t"},
		{"ocsf", `"host","security_control"`, `"host"`, "profile security_control is not named"},
		{"ocsf", `"code":403`, `"code":4030000000000`, "is no integer_t"},
		{"ocsf", `"http_method":"GET"`, `"http_method":"BREW"`, "no value of the enumeration"},
		{"ocsf", `"version":"1.9.0"`, `"version":"1.8.0"`, "metadata.version"},
		{"ecs", `"version":"9.5.0"`, `"edition":"9.5.0"`, "ecs.version: required and missing"},
		{"ecs", `"kind":"event"`, `"kind":"thing"`, "is not allowed"},
		{"ecs", `"access","denied"`, `"denied"`, "expects none of"},
		{"ecs", `"access","denied"`, `"access","group"`, "not of"},
		{"ecs", `"type":["access","denied"]`, `"type":"access"`, "array false"},
		{"ecs", `"sequence":42`, `"sequence":"42"`, "is no long"},
		{"ecs", `"ip":"203.0.113.7"`, `"ip":"p:1"`, "is no ip"},
		{"ecs", `"domain":`, `"hostname":`, "url.hostname: unknown field"},
		{"cloudevents", `"specversion":"1.0"`, `"specversion":"1.1"`, "not 1.0"},
		{"cloudevents", `"source":"/moat/gateway-a"`, `"source":"/moat/a b"`, "no URI-reference"},
		{"cloudevents", `"id":`, `"Id":`, "no name of an attribute"},
		{"cloudevents", `"subject":"order 7"`, `"subject":"a\u0085b"`, "is no String"},
		{"cloudevents", `"outcome":"deny"`, `"tenant":"acme"`, "unknown attribute"},
	} {
		good, err := mustFormat(t, c.format).Append(nil, line)
		if err != nil {
			t.Fatal(err)
		}
		bad := strings.Replace(string(good), c.old, c.new, 1)
		if bad == string(good) {
			t.Errorf("%s: %s is not in %s", c.format, c.old, good)
			continue
		}
		found := strings.Join(checks[c.format](decode(t, []byte(bad))), "\n")
		if !strings.Contains(found, c.want) {
			t.Errorf("%s: %s → %s: found %q, want %q", c.format, c.old, c.new, found, c.want)
		}
	}
}
