package token_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/moat-gateway/moat/internal/identity"
	"github.com/moat-gateway/moat/internal/token"
)

// oracle is a second reading of what an issuer's configuration promises,
// written from RFC 7515, 7519 and 8259 and from the comments of Config, with
// other means than the verifier's. It sees no signature: what it judges is
// always well signed.
type oracle struct {
	c          token.Config
	alg, keyID string
	leeway     time.Duration
	lifetime   time.Duration
}

type opinion uint8

const (
	refuses opinion = iota
	expires         // refused for nothing but its exp
	accepts
	unsure // a date so near a bound that rounding decides
)

func (o oracle) judge(raw string) (opinion, *identity.Principal) {
	parts := strings.Split(raw, ".")
	if len(raw) > 8192 || len(parts) != 3 {
		return refuses, nil
	}
	head, okHead := fromBase64url(parts[0])
	body, okBody := fromBase64url(parts[1])
	if !okHead || !okBody || len(head) > 1024 {
		return refuses, nil
	}
	header, okHeader := readStrictly(head, 64)
	claims, okClaims := readStrictly(body, 512)
	if !okHeader || !okClaims || !o.trustsHeader(header) || !o.meant(claims) {
		return refuses, nil
	}
	p, ok := o.caller(claims)
	if !ok {
		return refuses, nil
	}
	return o.dated(claims, p), p
}

// fromBase64url reads six bits at a time. RFC 4648 section 3.5: the bits left
// over are zero, and there are fewer than six of them.
func fromBase64url(s string) ([]byte, bool) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	var out []byte
	bits, held := 0, 0
	for _, c := range []byte(s) {
		six := strings.IndexByte(alphabet, c)
		if six < 0 {
			return nil, false
		}
		bits, held = bits<<6|six, held+6
		if held >= 8 {
			held -= 8
			out = append(out, byte(bits>>held))
			bits &= 1<<held - 1
		}
	}
	return out, s != "" && held < 6 && bits == 0
}

// escapes finds whole escapes, so that an escaped backslash does not begin one.
var escapes = regexp.MustCompile(`\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u(....)|[^u])`)

// readStrictly lets the standard library judge the grammar, shuts out what that
// repairs, and then counts and looks for second names token by token.
func readStrictly(data []byte, nodes int) (map[string]any, bool) {
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, false
	}
	for _, m := range escapes.FindAllSubmatch(data, -1) {
		if half := strings.ToLower(string(m[1])); half >= "d800" && half <= "dfff" {
			return nil, false
		}
	}
	r := reader{json.NewDecoder(bytes.NewReader(data)), nodes}
	r.UseNumber()
	value, ok := r.value(16)
	object, isObject := value.(map[string]any)
	return object, ok && isObject
}

type reader struct {
	*json.Decoder
	nodes int // that may still come
}

func (r *reader) value(depth int) (any, bool) {
	first, err := r.Token()
	if err != nil {
		return nil, false
	}
	switch first := first.(type) {
	case json.Delim:
		if depth == 0 {
			return nil, false
		}
		if first == '{' {
			return r.object(depth - 1)
		}
		return r.array(depth - 1)
	case json.Number:
		return first, len(first) <= 64
	}
	return first, true
}

func (r *reader) object(depth int) (any, bool) {
	object := map[string]any{}
	for r.More() {
		r.nodes--
		name, err := r.Token()
		key, _ := name.(string)
		if _, twice := object[key]; err != nil || twice || r.nodes < 0 {
			return nil, false
		}
		value, ok := r.value(depth)
		if !ok {
			return nil, false
		}
		object[key] = value
	}
	_, err := r.Token()
	return object, err == nil
}

func (r *reader) array(depth int) (any, bool) {
	array := []any{}
	for r.More() {
		r.nodes--
		value, ok := r.value(depth)
		if !ok || r.nodes < 0 {
			return nil, false
		}
		array = append(array, value)
	}
	_, err := r.Token()
	return array, err == nil
}

func (o oracle) trustsHeader(header map[string]any) bool {
	for name, value := range header {
		s, isText := value.(string)
		ok := false
		switch name {
		case "alg":
			ok = s == o.alg
		case "kid":
			ok = isText && clean(s) && (o.keyID == "" || s == o.keyID)
		case "typ":
			ok = isText && o.hasType(s)
		case "cty":
			ok = lower(s) == "jwt"
		default:
			ok = slices.Contains(o.c.IgnoredHeaders, name)
		}
		if !ok {
			return false
		}
	}
	if _, ok := header["typ"]; !ok && !o.hasType("jwt") {
		return false
	}
	return header["alg"] != nil
}

// lower folds what media types fold: ASCII.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func (o oracle) hasType(typ string) bool {
	types := o.c.Types
	if types == nil {
		types = []string{"JWT", "at+jwt"}
	}
	for _, known := range types {
		if lower(typ) == lower(known) || lower(typ) == "application/"+lower(known) {
			return true
		}
	}
	return false
}

// clean reports whether an identifier is 1 to 256 bytes without controls and
// line separators.
func clean(s string) bool {
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r <= 0x9f || r == 0x2028 || r == 0x2029 {
			return false
		}
	}
	return s != "" && len(s) <= 256
}

// meant reports whether the claims say that the token is an access token of
// the issuer for us.
func (o oracle) meant(claims map[string]any) bool {
	if _, ok := claims["events"]; ok {
		return false
	}
	for _, name := range []string{"nonce", "at_hash", "c_hash", "s_hash"} {
		if _, ok := claims[name]; ok && !o.c.AcceptIDTokens {
			return false
		}
	}
	if (claims["token_use"] == "id" || claims["typ"] == "ID") && !o.c.AcceptIDTokens {
		return false
	}
	iss, ok := claims["iss"].(string)
	return ok && slices.Contains(o.c.Issuers, iss) && o.addressed(claims) && o.issuedTo(claims)
}

func (o oracle) addressed(claims map[string]any) bool {
	list, ok := claims["aud"].([]any)
	if !ok {
		list = []any{claims["aud"]}
	}
	named := 0
	for _, entry := range list {
		s, ok := entry.(string)
		if !ok {
			return false
		}
		if slices.Contains(o.c.Audience, s) {
			named++
		}
	}
	return named > 0
}

func (o oracle) issuedTo(claims map[string]any) bool {
	if o.c.AuthorizedParties == nil {
		return true
	}
	name := "client_id"
	if _, ok := claims["azp"]; ok {
		name = "azp"
	}
	client, ok := claims[name].(string)
	return ok && slices.Contains(o.c.AuthorizedParties, client)
}

// dating compares dates with bounds. The verifier reads dates to some
// microseconds, so that what is nearer to a bound without meeting it is not
// foreseen.
type dating struct{ near bool }

func (d *dating) above(x, bound float64) bool {
	if x != bound && math.Abs(x-bound) < 1e-4 {
		d.near = true
	}
	return x > bound
}

// sinceNow returns the seconds from now to a date. It is not ok when the date
// is there but none.
func (d *dating) sinceNow(claims map[string]any, name string) (seconds float64, present, ok bool) {
	value, present := claims[name]
	if !present {
		return 0, false, true
	}
	number, ok := value.(json.Number)
	if !ok {
		return 0, true, false
	}
	exact, _, err := big.ParseFloat(string(number), 10, 512, big.ToNearestEven)
	if err != nil {
		return 0, true, false
	}
	plain, _ := exact.Float64()
	ok = d.above(plain, 0) && !d.above(plain, 1e11) && plain != 1e11
	seconds, _ = exact.Sub(exact, big.NewFloat(float64(now.Unix()))).Float64()
	return seconds, true, ok
}

func (o oracle) dated(claims map[string]any, p *identity.Principal) opinion {
	var d dating
	leeway, lifetime := o.leeway.Seconds(), o.lifetime.Seconds()
	exp, has, okExp := d.sinceNow(claims, "exp")
	nbf, _, okNbf := d.sinceNow(claims, "nbf")
	iat, hasIat, okIat := d.sinceNow(claims, "iat")
	bad := !has || !okExp || !okNbf || !okIat
	for _, wrong := range []bool{
		d.above(nbf, leeway), d.above(iat, leeway), hasIat && d.above(exp-iat, lifetime), d.above(exp, lifetime+leeway),
	} {
		bad = bad || wrong
	}
	over := !d.above(exp, -leeway)
	p.Expires = now.Add(time.Duration(exp * 1e9))
	switch {
	case d.near:
		return unsure
	case bad:
		return refuses
	case over:
		return expires
	}
	return accepts
}

// lookUp walks down a path. Its answers: a value, nothing there, or a path
// through something that is no object.
func lookUp(claims map[string]any, paths [][]string) (value any, there, broken bool) {
	for _, path := range paths {
		value, there = any(claims), true
		for _, name := range path {
			object, ok := value.(map[string]any)
			if !ok {
				return nil, false, true
			}
			if value, there = object[name]; !there {
				break
			}
		}
		if there {
			return value, true, false
		}
	}
	return nil, false, false
}

const whiteSpace = "\t\n\v\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"

// naming returns an identifier, or nothing where there is none.
func naming(claims map[string]any, paths [][]string, defaults ...string) (string, bool) {
	for _, name := range defaults {
		paths = append(paths, []string{name})
	}
	value, there, broken := lookUp(claims, paths)
	if !there {
		return "", !broken
	}
	switch value := value.(type) {
	case string:
		return value, clean(value) && strings.Trim(value, whiteSpace) == value
	case json.Number:
		_, integer := new(big.Int).SetString(string(value), 10)
		return string(value), integer && value != "-0"
	}
	return "", false
}

func (o oracle) caller(claims map[string]any) (*identity.Principal, bool) {
	paths := o.c.Claims
	if paths.ID == nil { // all or none are written down here
		paths = token.ClaimPaths{
			ID: [][]string{{"sub"}}, Tenant: [][]string{{"tenant_id"}}, Session: [][]string{{"sid"}, {"jti"}}, Roles: [][]string{{"roles"}, {"role"}},
		}
	}
	id, okID := naming(claims, paths.ID)
	tenant, okTenant := naming(claims, paths.Tenant)
	session, okSession := naming(claims, paths.Session)
	roles, okRoles := o.roles(claims, paths.Roles)
	nobody := strings.ToLower(strings.ToUpper(id)) == "anonymous"
	return &identity.Principal{
		ID: id, Tenant: tenant, Session: session, Roles: roles, Issuer: o.c.Name, SharesIDs: o.c.SharesIDs, Claims: claims,
	}, okID && okTenant && okSession && okRoles && id != "" && !nobody
}

func (o oracle) roles(claims map[string]any, paths [][]string) ([]string, bool) {
	value, there, broken := lookUp(claims, paths)
	if !there {
		return nil, !broken
	}
	list, isList := value.([]any)
	if s, ok := value.(string); ok {
		list = []any{s}
		if words := strings.Split(s, o.c.SplitRoles); o.c.SplitRoles != "" && s != "" {
			list = nil
			for _, word := range words {
				if word != "" {
					list = append(list, word)
				}
			}
		}
	} else if !isList {
		return nil, false
	}
	var out []string
	for _, entry := range list {
		s, ok := entry.(string)
		if !ok || s == "" {
			return nil, false
		}
		granted, translated := o.c.RoleMap[s]
		if !translated {
			granted = []string{s}
		}
		for _, role := range granted {
			if knownRole(role) && (o.c.MayGrant == nil || slices.Contains(o.c.MayGrant, role)) && !slices.Contains(out, role) {
				out = append(out, role)
			}
		}
	}
	return out, true
}

// judged is a verifier, the oracle that knows its rules, and the key it trusts.
type judged struct {
	v   *token.Verifier
	o   oracle
	key any
}

// judgedPairs returns plain and elaborate rules, each for a public key and for
// a secret.
func judgedPairs(tb testing.TB) []judged {
	tb.Helper()
	plain := config(tb)
	elaborate := config(tb)
	elaborate.Issuers = append(elaborate.Issuers, "https://other.example.com/")
	elaborate.Audience = append(elaborate.Audience, "files-api")
	elaborate.Types = []string{"at+jwt", "application/x+jwt"}
	elaborate.IgnoredHeaders = []string{"x5t", "cat"}
	elaborate.AuthorizedParties = []string{"web", "phone"}
	elaborate.AcceptIDTokens, elaborate.SharesIDs = true, true
	elaborate.Leeway, elaborate.MaxLifetime = time.Minute, time.Hour
	elaborate.Claims = token.ClaimPaths{
		ID: [][]string{{"ext", "user", "id"}, {"sub"}}, Tenant: [][]string{{"org"}, {"tenant_id"}},
		Roles: [][]string{{"realm_access", "roles"}, {"roles"}}, Session: [][]string{{"sid"}},
	}
	elaborate.RoleMap = map[string][]string{"g-1": {"admin", "guest"}, "admin": {"user"}}
	elaborate.SplitRoles = " "
	elaborate.MayGrant = []string{"user", "guest"}
	var out []judged
	for _, c := range []token.Config{plain, elaborate} {
		o := oracle{c: c, alg: "ES256", keyID: "ec", leeway: 30 * time.Second, lifetime: 24 * time.Hour}
		if c.Leeway != 0 {
			o.leeway, o.lifetime = c.Leeway, c.MaxLifetime
		}
		for _, key := range []any{ring().ec, ring().secret} {
			if secret, ok := key.([]byte); ok {
				c.Keys = static(tb, nil, token.Key{Public: secret})
				o.alg, o.keyID = "HS256", ""
			}
			v, err := token.NewVerifier(c)
			if err != nil {
				tb.Fatal(err)
			}
			out = append(out, judged{v, o, key})
		}
	}
	return out
}

// agree signs a token and holds the verifier's verdict against the oracle's.
func (j judged) agree(t *testing.T, raw string) {
	t.Helper()
	want, who := j.o.judge(raw)
	p, err := j.v.Verify(context.Background(), raw)
	var refusal *token.Error
	errors.As(err, &refusal)
	got := accepts
	switch {
	case err != nil && refusal.Code == token.Expired:
		got = expires
	case err != nil:
		got = refuses
	}
	if want == unsure {
		return
	}
	if got != want {
		t.Fatalf("verdict %d (%+v), the oracle's %d, of %q", got, refusal, want, raw)
	}
	if got != accepts {
		return
	}
	if off := p.Expires.Sub(who.Expires).Abs(); off > 10*time.Microsecond {
		t.Fatalf("expires %v, want %v, of %q", p.Expires, who.Expires, raw)
	}
	who.Expires = p.Expires
	if who = identity.Authenticated(*who); !reflect.DeepEqual(p, who) {
		t.Fatalf("caller %+v, want %+v, of %q", p, who, raw)
	}
}

// unsigned returns what a token of the attack table says before it is signed:
// header and payload, or where they are not to be decoded the two parts as they
// stand.
func unsigned(raw string) (header, payload string, spelled bool) {
	parts := strings.Split(raw, ".")
	if len(parts) < 3 {
		return raw, "", true
	}
	head, okHead := fromBase64url(parts[0])
	body, okBody := fromBase64url(parts[1])
	if okHead && okBody && len(parts) == 3 {
		return string(head), string(body), false
	}
	return parts[0], strings.Join(parts[1:len(parts)-1], "."), true
}

// attackTable is every token of the attack table.
func attackTable(t *testing.T) []attack {
	return slices.Concat(
		spellingAttacks(t), shapeAttacks(t), jsonAttacks(t), headerAttacks(t), algorithmAttacks(t),
		signatureAttacks(t), addressAttacks(t), dateAttacks(t), purposeAttacks(t), propertyAttacks(t))
}

// elaborateClaims are claims that the elaborate rules accept.
const (
	elaborateHeader = `{"alg":"ES256","typ":"application/at+JWT","kid":"ec","x5t":1,"cty":"jwt"}`
	elaborateClaims = `{"iss":"https://other.example.com/","aud":["x","files-api"],"azp":"web","exp":1.8000006e9,"nbf":1799999999.5,` +
		`"iat":1799999000,"ext":{"user":{"id":17}},"org":"\u017do","realm_access":{"roles":["g-1","admin","x"]},"nonce":"n"}`
)

// The verifier accepts a signed token exactly when the oracle does, names the
// same caller, and says Expired of the same tokens. The last argument picks the
// rules and the key, and whether header and payload are bytes to be encoded or
// the parts' own spelling.
func FuzzVerdictIsThatOfASecondReading(f *testing.F) {
	pairs := judgedPairs(f)
	add := func(header, payload string, spelled bool) {
		kind := uint8(0)
		if spelled {
			kind = 4
		}
		for rules := range uint8(4) {
			own := strings.Replace(header, `"ES256"`, fmt.Sprintf("%q", pairs[rules].o.alg), 1)
			f.Add(own, payload, kind|rules)
		}
	}
	// The generators want a T for what can not happen.
	for _, a := range attackTable(new(testing.T)) {
		if header, payload, spelled := unsigned(a.token); len(a.token) <= 8192+512 {
			add(header, payload, spelled)
		}
	}
	for _, change := range []map[string]any{
		nil, {"exp": now.Unix() - 31}, {"exp": now.Unix() - 30}, {"roles": "admin"}, {"roles": []string{}}, {"sub": 42}, {"aud": []string{"x", audience}},
		{"nbf": now.Unix() + 30}, {"azp": "web"}, {"client_id": "phone", "nonce": "n"}, {"sid": nil, "jti": "j"},
	} {
		add(goodHeader, toJSON(f, goodClaims(change)), false)
		add(b64(goodHeader), b64(toJSON(f, goodClaims(change))), true)
	}
	add(elaborateHeader, elaborateClaims, false)
	f.Fuzz(func(t *testing.T, header, payload string, kind uint8) {
		j := pairs[kind%4]
		if kind&4 == 0 {
			header, payload = b64(header), b64(payload)
		}
		j.agree(t, signedOver(t, header+"."+payload, j.key))
	})
}

// The oracle is of use only if it accepts, too.
func TestSecondReadingAcceptsWhatIsGood(t *testing.T) {
	for i, j := range judgedPairs(t) {
		header, payload := goodHeader, toJSON(t, goodClaims(nil))
		if i >= 2 {
			header, payload = elaborateHeader, elaborateClaims
		}
		header = strings.Replace(header, "ES256", j.o.alg, 1)
		raw := sealed(t, header, payload, j.key)
		if got, who := j.o.judge(raw); got != accepts {
			t.Errorf("%d: opinion %d of %+v", i, got, who)
		}
		j.agree(t, raw)
		late := strings.Replace(strings.Replace(payload, fmt.Sprint(now.Unix()+600), "1799999940", 1), "1.8000006e9", "1799999940", 1)
		if got, _ := j.o.judge(sealed(t, header, late, j.key)); got != expires {
			t.Errorf("%d: opinion %d of an expired token", i, got)
		}
		j.agree(t, sealed(t, header, late, j.key))
	}
}
