package redisconn_test

import (
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/internal/redisconn"
)

func TestURLsThatName(t *testing.T) {
	for url, want := range map[string]string{
		"redis://localhost":                                  "redis://localhost:6379",
		"redis://127.0.0.1:6380/3":                           "redis://127.0.0.1:6380/3",
		"redis://h/0":                                        "redis://h:6379",
		"redis://h/":                                         "redis://h:6379",
		"redis://[::1]":                                      "redis://[::1]:6379",
		"redis://[::1]:7000/1":                               "redis://[::1]:7000/1",
		"REDIS://h":                                          "redis://h:6379",
		"rediss://h":                                         "rediss://h:6379",
		"redis://user:planted@h:1":                           "redis://h:1",
		"redis://:planted@h":                                 "redis://h:6379",
		"redis://user:pl%40nt%2Fed%3F@h":                     "redis://h:6379",
		"unix:///run/redis.sock":                             "unix:///run/redis.sock",
		"unix:///run/redis.sock?db=2":                        "unix:///run/redis.sock/2",
		"unix://user:planted@/run/redis.sock":                "unix:///run/redis.sock",
		"redis+cluster://a,b:7001,[::1]":                     "redis+cluster://a:6379,b:7001,[::1]:6379",
		"rediss+cluster://user:planted@a:1,b:2/0":            "rediss+cluster://a:1,b:2",
		"redis+sentinel://a,b:1/mymaster":                    "redis+sentinel://a:26379,b:1/mymaster",
		"redis+sentinel://:planted@a/mymaster/4":             "redis+sentinel://a:26379/mymaster/4",
		"rediss+sentinel://a.example,b.example/mymaster/0":   "rediss+sentinel://a.example:26379,b.example:26379/mymaster",
		"redis://user:planted%20with%20spaces@h.example:443": "redis://h.example:443",
	} {
		o := redisconn.Options{URL: url}
		if err := o.Validate(); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if got := o.String(); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
}

func TestURLsThatDoNot(t *testing.T) {
	for _, url := range []string{
		"", "localhost", "localhost:6379", "redis:", "redis:/", "redis://", "redis:///", "redis:///0",
		"http://h", "redis+unix://h", "://h", "redis//h",
		"redis://h:0", "redis://h:65536", "redis://h:x", "redis://h:-1", "redis://:6379", "redis://h h", "redis://h%2f",
		"redis://::1", "redis://0:0:1", "redis://[::1", "redis://[::1]x", "redis://[fe80::1%25eth0]",
		"redis://a,b", "redis://h/x", "redis://h/-1", "redis://h/+1", "redis://h/1/2", "redis://h/1048577", "redis://h/ 1",
		"redis://h?db=1", "redis://h?", "redis://h#f", "redis://h/0#", "redis://h/0?read_timeout=1h",
		"redis://user@h", "redis://a:b@c@h:x", "redis://us er:p@h", "redis://u:%zz@h",
		"unix://", "unix:///", "unix://run/redis.sock", "unix:///s?db=x", "unix:///s?db=1&db=2", "unix:///s?pool_size=1", "unix:///s?%zz",
		"redis+cluster://", "redis+cluster://a,", "redis+cluster://,a", "redis+cluster://a,,b", "redis+cluster://a/1",
		"redis+sentinel://a", "redis+sentinel://a/", "redis+sentinel://a//0", "redis+sentinel://a/m/x", "redis+sentinel://a/m/0/1",
		"redis+cluster://" + strings.Repeat("a,", 64) + "a",
		"redis://" + strings.Repeat("a", 5000),
		"redis+sentinel://a/" + strings.Repeat("m", 129),
		"redis://\x00", "redis://h\r\nX", "redis://h\\x",
	} {
		o := redisconn.Options{URL: url}
		if err := o.Validate(); err == nil {
			t.Errorf("%.80q: accepted as %s", url, o)
		}
		if client, err := redisconn.New(o); err == nil {
			_ = client.Close()
			t.Errorf("%.80q: New made a client", url)
		}
	}
}

func TestOptionsReportEveryMistake(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    redisconn.Options
		want []string
	}{
		{"zero", redisconn.Options{}, []string{"url missing"}},
		{"everything", redisconn.Options{
			URL: "redis://u:p@h", Username: "u", Timeout: time.Hour, PoolSize: -1, CAFile: "ca.pem", CertFile: "c.pem", SentinelUsername: "s",
		}, []string{"credentials in the url and apart", "timeout 1h0m0s", "pool size -1", "need a rediss url", "certificate and key", "need a sentinel url"}},
		{"no url and more", redisconn.Options{Timeout: -1, PoolSize: 10_001}, []string{"url missing", "timeout -1ns", "pool size 10001"}},
		{"user alone", redisconn.Options{URL: "redis://h", Username: "u"}, []string{"without a password"}},
		{"sentinel user alone", redisconn.Options{URL: "redis+sentinel://h/m", SentinelUsername: "u"}, []string{"sentinel user"}},
		{"short timeout", redisconn.Options{URL: "redis://h", Timeout: time.Microsecond}, []string{"timeout 1µs"}},
		{"server name without tls", redisconn.Options{URL: "redis://h", ServerName: "x"}, []string{"rediss"}},
		{"insecure without tls", redisconn.Options{URL: "redis://h", InsecureSkipVerify: true}, []string{"rediss"}},
		{"key alone", redisconn.Options{URL: "rediss://h", KeyFile: "k.pem"}, []string{"certificate and key"}},
	} {
		err := tt.o.Validate()
		if err == nil {
			t.Errorf("%s: accepted", tt.name)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error does not name %q:\n%v", tt.name, want, err)
			}
		}
	}
}

// net/url quotes what it cannot parse, password and all.
func TestErrorsShowNoCredential(t *testing.T) {
	for _, url := range []string{
		"redis://user:planted/secret@h", "redis://user:planted@secret@h:x", "redis://user:planted#secret@h",
		"redis://user:planted?secret@h", "redis://user:%zzplanted@h", "redis://user:planted secret@h",
		"plantedsecret://user@h", "redis://user:planted@h:secret", "redis+cluster://user:planted,secret@h",
		"unix://user:planted@relative", "unix:///s?password=planted", "unix:///s?db=planted", "redis://h/planted", "redis://planted:secret",
	} {
		for _, o := range []redisconn.Options{{URL: url}, {URL: url, Username: "u", Password: "planted"}} {
			err := o.Validate()
			text := o.String()
			if err != nil {
				text += err.Error()
			}
			if strings.Contains(text, "planted") || strings.Contains(text, "secret") {
				t.Errorf("%s: shows it: %s", url, text)
			}
		}
	}
}

func TestKeyTellsClientsApart(t *testing.T) {
	base := redisconn.Options{URL: "rediss+sentinel://a,b/m/0"}
	keys := map[string]int{}
	for i, change := range []func(*redisconn.Options){
		func(*redisconn.Options) {},
		func(o *redisconn.Options) { o.URL = "rediss+sentinel://a,b/m/1" },
		func(o *redisconn.Options) { o.URL = "rediss+sentinel://a,b/n/0" },
		func(o *redisconn.Options) { o.URL = "rediss+sentinel://a/m/0" },
		func(o *redisconn.Options) { o.URL = "redis+sentinel://a,b/m/0" },
		func(o *redisconn.Options) { o.URL = "rediss+cluster://a,b" },
		func(o *redisconn.Options) { o.URL = "invalid" },
		func(o *redisconn.Options) { o.URL = "invalid too" },
		func(o *redisconn.Options) { o.Password = "p" },
		func(o *redisconn.Options) { o.Password = "q" },
		func(o *redisconn.Options) { o.Username, o.Password = "p", "p" },
		func(o *redisconn.Options) { o.SentinelPassword = "p" },
		func(o *redisconn.Options) { o.SentinelUsername, o.SentinelPassword = "p", "p" },
		func(o *redisconn.Options) { o.Timeout = time.Second },
		func(o *redisconn.Options) { o.PoolSize = 3 },
		func(o *redisconn.Options) { o.CAFile = "f" },
		func(o *redisconn.Options) { o.CertFile = "f" },
		func(o *redisconn.Options) { o.KeyFile = "f" },
		func(o *redisconn.Options) { o.ServerName = "f" },
		func(o *redisconn.Options) { o.InsecureSkipVerify = true },
	} {
		o := base
		change(&o)
		key := redisconn.Key(o)
		if other, dup := keys[key]; dup {
			t.Errorf("changes %d and %d share a key", i, other)
		}
		keys[key] = i
		if len(key) != 64 || strings.ContainsAny(key, "@:/") {
			t.Errorf("key %q", key)
		}
	}
}

func TestKeyOfTheSameClientIsTheSame(t *testing.T) {
	want := redisconn.Key(redisconn.Options{URL: "redis://user:p%40ss@h:6379/0", Timeout: redisconn.DefaultTimeout})
	for _, o := range []redisconn.Options{
		{URL: "redis://user:p%40ss@h"},
		{URL: "redis://h/", Username: "user", Password: "p@ss"},
		{URL: "REDIS://user:p@ss@h:6379"},
	} {
		if got := redisconn.Key(o); got != want {
			t.Errorf("%s has another key", o)
		}
	}
}

func FuzzOptions(f *testing.F) {
	for _, url := range []string{
		"redis://u:p@h:1/2", "rediss://[::1]", "unix://u:p@/s?db=1", "redis+cluster://a,b:1", "redis+sentinel://a/m/3",
		"redis://u:p/x@h", "redis://@", "redis://%", "unix:", "redis+cluster://,,", "redis://h?x#y",
	} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		o := redisconn.Options{URL: url}
		if err := o.Validate(); err != nil {
			if strings.Contains(err.Error(), "\n\n") || len(err.Error()) > 1000 {
				t.Fatalf("error %q", err)
			}
			return
		}
		// What is printed names the same server and no credential.
		printed := redisconn.Options{URL: o.String()}
		if strings.HasPrefix(o.String(), "unix://") {
			return
		}
		if err := printed.Validate(); err != nil {
			t.Fatalf("%q prints as %q: %v", url, printed.URL, err)
		}
		if printed.String() != o.String() {
			t.Fatalf("%q prints as %q, and that as %q", url, o, printed)
		}
	})
}
