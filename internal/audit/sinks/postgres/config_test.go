package postgres_test

import (
	"strings"
	"testing"

	"github.com/moat-gateway/moat/internal/audit/sinks/postgres"
)

func TestEveryConfigErrorIsReportedAtOnce(t *testing.T) {
	_, err := postgres.New(postgres.Config{DSN: "postgres://u:planted-secret@%%/x", Table: "a;drop", Timeout: -1})
	if err == nil || strings.Contains(err.Error(), "planted") {
		t.Fatal(err)
	}
	for _, want := range []string{"dsn", `table "a;drop"`, "timeout -1ns"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
}

func TestDSNsThatAreRefused(t *testing.T) {
	for text, ok := range map[string]bool{
		"":    false,
		"   ": false,
		"postgres://u:planted-secret@db.example.com/audit":                                    false,
		"postgres://u:planted-secret@db.example.com/audit?sslmode=prefer":                     false,
		"postgres://u:planted-secret@db.example.com/audit?sslmode=allow":                      false,
		"postgres://u:planted-secret@127.0.0.1,10.0.0.7/audit":                                false,
		"host=10.0.0.7 password=planted-secret":                                               false,
		"postgres://u:planted-secret@db.example.com/audit?sslmode=verify-full&sslrootcert=/x": false,
		"postgres://u:planted-secret@db.example.com/audit?sslmode=nonsense":                   false,
		"host=/run password=planted-secret " + strings.Repeat(" ", 5000):                      false,
		"postgres://u:planted-secret@db.example.com/audit?sslmode=verify-full":                true,
		"postgres://u:planted-secret@db.example.com/audit?sslmode=require":                    true,
		"postgres://u:planted-secret@10.0.0.7/audit?sslmode=disable":                          true,
		"postgres://u:planted-secret@127.0.0.1/audit":                                         true,
		"postgres://u:planted-secret@[::1]/audit":                                             true,
		"postgres://u:planted-secret@localhost/audit":                                         true,
		"host=/run/postgresql user=u":                                                         true,
	} {
		_, err := postgres.New(postgres.Config{DSN: text})
		if (err == nil) != ok {
			t.Errorf("%.90q: %v", text, err)
		}
		if err != nil && strings.Contains(err.Error(), "planted") {
			t.Errorf("the error repeats the password: %v", err)
		}
	}
}

func TestTableNamesThatAreRefused(t *testing.T) {
	for name, ok := range map[string]bool{
		`a"b`: false, "a b": false, "a.b.c": false, ".a": false, "a.": false, "1a": false, "Audit": false, "é": false, "a\n": false,
		strings.Repeat("a", 47): false, strings.Repeat("a", 46): true, "audit.events": true, "_x1": true,
	} {
		if _, err := postgres.New(postgres.Config{DSN: "host=/run", Table: name}); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestAPlaceIsWhereTheEventsGoAndHoldsNoSecret(t *testing.T) {
	first := postgres.Place("postgres://moat:planted-secret@db.example:5433/audit?sslmode=verify-full", "")
	for dsn, same := range map[string]bool{
		"postgres://other:rotated@db.example:5433/audit?sslmode=require":           true,
		"host=db.example port=5433 user=x password=y dbname=audit sslmode=disable": true,
		"postgres://moat@db.example:5433/other?sslmode=verify-full":                false,
		"postgres://moat@db2.example:5433/audit?sslmode=verify-full":               false,
		"postgres://moat@db.example:5432/audit?sslmode=verify-full":                false,
	} {
		if got := postgres.Place(dsn, "moat_audit"); (got == first) != same {
			t.Errorf("%s: %q beside %q", dsn, got, first)
		}
	}
	if postgres.Place("host=/run dbname=a", "x") == postgres.Place("host=/run dbname=a", "y") {
		t.Error("two tables are one place")
	}
	if strings.Contains(first, "planted") || strings.Contains(first, "moat:") {
		t.Errorf("place %q", first)
	}
}
