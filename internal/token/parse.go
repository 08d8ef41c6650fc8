package token

import (
	"encoding/base64"
	"errors"
	"strings"
)

const (
	defaultMaxToken  = 8 << 10
	defaultMaxHeader = 1 << 10
	// largestToken is the most MaxToken may be set to. Request headers hold
	// little more.
	largestToken = 16 << 10
)

var (
	headerLimits = jsonLimits{depth: 16, nodes: 64}
	claimLimits  = jsonLimits{depth: 16, nodes: 512}
)

// compact is a token that passed the strict front. Nothing in it is verified.
type compact struct {
	header     map[string]any
	claims     map[string]any
	signed     string // what the signature covers
	signature  []byte
	size       int // of the token in bytes
	headerSize int // of the decoded header in bytes
}

// parse takes a token in the compact serialization apart (RFC 7515 section 7.1)
// and returns the reason when it is not one.
func parse(raw string, maxToken int) (*compact, string) {
	if len(raw) > maxToken {
		return nil, ReasonTooLarge
	}
	first := strings.IndexByte(raw, '.')
	last := strings.LastIndexByte(raw, '.')
	if first == last { // none or one; a third is not in the alphabet of a part
		return nil, ReasonMalformed
	}
	header, okHeader := decodePart(raw[:first])
	payload, okPayload := decodePart(raw[first+1 : last])
	signature, okSignature := decodePart(raw[last+1:])
	if !okHeader || !okPayload || !okSignature {
		return nil, ReasonMalformed
	}
	c := &compact{signed: raw[:last], signature: signature, size: len(raw), headerSize: len(header)}
	var reason string
	if c.header, reason = decodeJSON(header, headerLimits, ReasonHeaderDuplicate); reason != "" {
		return nil, reason
	}
	if c.claims, reason = decodeJSON(payload, claimLimits, ReasonClaimDuplicate); reason != "" {
		return nil, reason
	}
	return c, ""
}

// decodePart decodes strict base64url: no padding, no white space, no bits left
// over. Without that one token has many spellings, and whatever is kept by
// spelling (a cache, a deny list) can be walked around.
func decodePart(s string) ([]byte, bool) {
	// The standard decoder skips line ends wherever they stand.
	if s == "" || strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return b, err == nil
}

func decodeJSON(data []byte, limits jsonLimits, duplicate string) (map[string]any, string) {
	object, err := decodeObject(string(data), limits)
	switch {
	case err == nil:
		return object, ""
	case errors.Is(err, errJSONDuplicate):
		return nil, duplicate
	case errors.Is(err, errJSONTooLarge):
		return nil, ReasonTooLarge
	}
	return nil, ReasonMalformed
}

// PeekIssuer returns the iss of a token that nobody has verified. It is good
// for picking the issuer whose keys shall judge, and for nothing else. The
// token passes the same strict front as in Verify; ok is false when it does
// not, or when iss is missing, empty or no string. A token of more than limit
// bytes is refused; zero or less means 8192.
func PeekIssuer(raw string, limit int) (iss string, ok bool) {
	if limit <= 0 {
		limit = defaultMaxToken
	}
	c, reason := parse(raw, limit)
	if reason != "" {
		return "", false
	}
	return c.issuer()
}

func (c *compact) issuer() (string, bool) {
	iss, _ := c.claims["iss"].(string)
	return iss, iss != ""
}
