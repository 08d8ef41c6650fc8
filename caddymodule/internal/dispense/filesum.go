package dispense

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/caddyserver/caddy/v2"

	"github.com/moat-gateway/moat/internal/rbac/policyfile"
)

// FileSum is the SHA-256 of a policy file in hex, or "" where there is no file
// to read: a Caddyfile may be adapted on another machine than it is for.
func FileSum(path string) string {
	path, err := caddy.NewReplacer().ReplaceOrErr(path, true, true)
	if err != nil || path == "" {
		return ""
	}
	data, err := policyfile.Read(path)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
