//go:build interop && linux

package interop

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// command runs a moat command that must succeed and returns what it printed.
func command(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(moatBinary, args...)
	cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "PATH=/usr/bin:/bin"}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		t.Fatalf("moat %s: %v\n%s", strings.Join(args, " "), err, complaint.String())
	}
	return strings.TrimSpace(out.String())
}

// judged is what jose's jwtVerify said.
type judged struct {
	OK      bool
	Code    string
	Payload object
	Header  object
}

// testOtherWayRound has the moat commands make keys and tokens, and jose judge
// them.
func testOtherWayRound(t *testing.T, w *world) {
	for _, alg := range append(publicAlgorithms, secretAlgorithms...) {
		t.Run(alg, func(t *testing.T) {
			dir := t.TempDir()
			source := madeKey(t, w, dir, alg)
			signed := func(more ...string) string {
				args := []string{"token", "sign", "--alg", alg, "--iss", "https://moat.test", "--aud", "orders-api", "--sub", "Zoë 42", "--role", "user,admin"}
				return command(t, dir, append(append(args, source.flags...), more...)...)
			}
			options := object{
				"issuer": "https://moat.test", "audience": "orders-api", "algorithms": []string{alg},
				"requiredClaims": []string{"sub", "iat", "exp", "jti"},
			}
			check := func(token string, options object) (all []judged) {
				for _, key := range source.public {
					var j judged
					w.jose.ask(t, "verify", with(key, object{"token": token, "options": options}), &j)
					all = append(all, j)
				}
				return all
			}
			for _, more := range [][]string{nil, {"--typ", "at+jwt", "--tenant", "t-1", "--claim", `realm_access.roles=["admin"]`}} {
				for _, j := range check(signed(more...), options) {
					if !j.OK {
						t.Fatalf("jose refused a token of moat token sign: %s", j.Code)
					}
					if j.Payload["sub"] != "Zoë 42" || j.Header["alg"] != alg {
						t.Errorf("jose read %v %v", j.Header, j.Payload)
					}
					figures.verify("moat token sign")
				}
			}
			for name, j := range map[string]judged{
				"JWTExpired":                     check(signed("--ttl", "-5m"), options)[0],
				"JWTClaimValidationFailed":       check(signed(), with(options, object{"audience": "another-api"}))[0],
				"JWSSignatureVerificationFailed": check(tampered(signed()), options)[0],
			} {
				if want := joseCodes[name]; j.OK || j.Code != want {
					t.Errorf("jose says %t %s, want %s", j.OK, j.Code, want)
				}
			}
		})
	}
	t.Run("with a key of jose", func(t *testing.T) {
		for kind, alg := range map[string]string{"rsa": "PS256", "p256": "ES256", "p384": "ES384", "p521": "ES512", "ed25519": "EdDSA"} {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "key.pem"), w.jose.token(t, "privateKey", object{"key": kind}))
			token := command(t, dir, "token", "sign", "--key", "key.pem", "--alg", alg,
				"--iss", issOf("pem"), "--aud", "orders-api", "--sub", "u-1", "--role", "user")
			if got := w.accepts(t, "moat token sign", token); got.ID != "u-1" || got.Roles != "user" {
				t.Errorf("the upstream saw %+v", got)
			}
		}
	})
}

// joseCodes are the codes of jose's errors by their class.
var joseCodes = map[string]string{
	"JWTExpired":                     "ERR_JWT_EXPIRED",
	"JWTClaimValidationFailed":       "ERR_JWT_CLAIM_VALIDATION_FAILED",
	"JWSSignatureVerificationFailed": "ERR_JWS_SIGNATURE_VERIFICATION_FAILED",
}

// keyOfMoat is a key made by moat token keygen: flags to sign with it, and where
// jose finds what to check with.
type keyOfMoat struct {
	flags  []string
	public []object
}

func madeKey(t testing.TB, w *world, dir, alg string) keyOfMoat {
	t.Helper()
	if strings.HasPrefix(alg, "HS") {
		command(t, dir, "token", "keygen", "--alg", alg, "--out", "dev")
		secret := strings.TrimSpace(readFile(t, filepath.Join(dir, "dev.secret")))
		return keyOfMoat{[]string{"--secret-file", "dev.secret"}, []object{{"secret": secret}}}
	}
	command(t, dir, "token", "keygen", "--alg", alg, "--out", "dev", "--jwks")
	var set struct{ Keys []object }
	if err := json.Unmarshal([]byte(readFile(t, filepath.Join(dir, "dev.jwks.json"))), &set); err != nil || len(set.Keys) != 1 {
		t.Fatalf("the key set has %d keys, %v", len(set.Keys), err)
	}
	kid, _ := set.Keys[0]["kid"].(string)
	if want := w.jose.token(t, "thumbprint", object{"jwk": set.Keys[0]}); kid != want {
		t.Errorf("the key's name is %q, its thumbprint by jose is %q", kid, want)
	}
	return keyOfMoat{[]string{"--key", "dev.private.pem", "--kid", kid}, []object{
		{"pem": readFile(t, filepath.Join(dir, "dev.public.pem"))}, {"jwks": object{"keys": set.Keys}},
	}}
}

func readFile(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// tampered changes the first character of the signature.
func tampered(token string) string {
	at := strings.LastIndexByte(token, '.') + 1
	other := byte('A')
	if token[at] == other {
		other = 'B'
	}
	return token[:at] + string(other) + token[at+1:]
}
