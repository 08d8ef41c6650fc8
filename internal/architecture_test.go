// Package internal_test holds the tree to its layers: who may import whom.
package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/moat-gateway/moat/"

// libraries are the outside modules that a package may use beyond its layer.
var libraries = map[string][]string{
	"internal/token":                   {"github.com/golang-jwt/jwt/v5"},
	"internal/rbac/when":               {"cel.dev/cel-go"},
	"internal/rbac/policyfile":         {"go.yaml.in/yaml/v3"},
	"internal/ratelimit/redisstore":    {"github.com/redis/go-redis/v9"},
	"internal/redisconn":               {"github.com/redis/go-redis/v9"},
	"internal/audit/sinks/redisstream": {"github.com/redis/go-redis/v9"},
	"internal/audit/sinks/postgres":    {"github.com/jackc/pgx/v5"},
	"internal/audit/sinks/sqlite":      {"modernc.org/sqlite"},
	"internal/audit/sinks/kafka":       {"github.com/twmb/franz-go"},
	"internal/audit/sinks/syslog":      {"golang.org/x/sys"},
	"internal/audit/sinks/otlp":        {"go.opentelemetry.io/proto/otlp", "google.golang.org/protobuf", "golang.org/x/net"},
}

// leaves may be imported by every domain.
var leaves = []string{"internal/identity", "internal/canon", "internal/filewatch"}

// imports returns what each package of the tree imports, tests left out.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	for _, root := range []string{".", "../caddymodule", "../cmd", "../integration"} {
		err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
				return err
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			pkg := strings.TrimPrefix(path.Join("internal", filepath.ToSlash(filepath.Dir(file))), "../")
			for _, spec := range parsed.Imports {
				name, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					return err
				}
				found[pkg] = append(found[pkg], name)
			}
			return nil
		})
		if err != nil && root != "../integration" {
			t.Fatal(err)
		}
	}
	if len(found) < 10 {
		t.Fatalf("found only %d packages; the walk is broken", len(found))
	}
	return found
}

func TestTheTreeKeepsToItsLayers(t *testing.T) {
	for pkg, names := range imports(t) {
		for _, name := range names {
			if why := forbidden(pkg, name); why != "" {
				t.Errorf("%s imports %s: %s", pkg, name, why)
			}
		}
	}
}

func TestTheLayersCanBeBroken(t *testing.T) {
	for _, row := range []struct{ pkg, name string }{
		{"internal/identity", module + "internal/canon"},
		{"internal/canon", "github.com/caddyserver/caddy/v2"},
		{"internal/filewatch", module + "internal/rbac"},
		{"internal/rbac", module + "internal/token"},
		{"internal/rbac", "go.uber.org/zap"},
		{"internal/ratelimit", "github.com/redis/go-redis/v9"},
		{"internal/audit", "github.com/golang-jwt/jwt/v5"},
		{"internal/audit/journal", module + "internal/token"},
		{"internal/token", module + "caddymodule/jwt"},
		{"caddymodule/jwt", module + "caddymodule/rbac"},
		{"caddymodule/internal/denial", module + "caddymodule/guard"},
		{"caddymodule/jwt", module + "cmd/moat"},
	} {
		if forbidden(row.pkg, row.name) == "" {
			t.Errorf("%s may import %s", row.pkg, row.name)
		}
	}
}

// forbidden says why pkg must not import name, or "".
func forbidden(pkg, name string) string {
	ours, isOurs := strings.CutPrefix(name, module)
	switch {
	case isOurs && (strings.HasPrefix(ours, "cmd/") || strings.HasPrefix(ours, "integration")):
		return "nobody imports a command or the integration tests"
	case strings.HasPrefix(pkg, "cmd/"), strings.HasPrefix(pkg, "integration"):
		return ""
	case strings.HasPrefix(pkg, "internal/"):
		return forbiddenToDomain(pkg, name, ours, isOurs)
	case pkg == "caddymodule":
		return ""
	case isOurs && strings.HasPrefix(ours, "caddymodule/") && !strings.HasPrefix(ours, "caddymodule/internal/"):
		return "Caddy modules meet through Caddy, never by import"
	}
	return ""
}

func forbiddenToDomain(pkg, name, ours string, isOurs bool) string {
	if !isOurs {
		if !strings.Contains(strings.Split(name, "/")[0], ".") {
			return "" // The standard library.
		}
		for _, library := range libraries[pkg] {
			if name == library || strings.HasPrefix(name, library+"/") {
				return ""
			}
		}
		return "a domain package uses the standard library only"
	}
	switch {
	case slices.Contains(leaves, pkg):
		return "a leaf imports nothing of ours"
	case slices.Contains(leaves, ours):
		return ""
	case strings.HasPrefix(ours, "internal/") && domain(ours) == domain(pkg):
		return "" // A sub-package may use its domain, and a domain its parts.
	case strings.HasPrefix(ours, "internal/"):
		return "a domain does not know another domain"
	}
	return "a domain does not know Caddy modules"
}

// domain is the first folder under internal.
func domain(pkg string) string {
	return strings.Split(strings.TrimPrefix(pkg, "internal/"), "/")[0]
}
