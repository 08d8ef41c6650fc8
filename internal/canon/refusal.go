package canon

// Class says which answer a refusal deserves.
type Class int

const (
	// BadRequest is a target that has no canonical form: status 400. It is the
	// zero value, so that a refusal nobody classified is still one.
	BadRequest Class = iota
	// MethodNotAllowed is a method outside the allow-list: status 405, with
	// Policy.Allow in the Allow header.
	MethodNotAllowed
	// URITooLong is a path or query over its limit: status 414.
	URITooLong
)

// The reasons of a Refusal. They are stable: audit events and tests rely on them.
const (
	// ReasonMethod is a method outside the allow-list.
	ReasonMethod = "canon.method"
	// ReasonNoTarget is a request without a target, or one without a path.
	ReasonNoTarget = "canon.no-target"
	// ReasonOpaque is a target such as "http:admin" that has no path to judge.
	ReasonOpaque = "canon.opaque-target"
	// ReasonAsterisk is the target "*", which names the server and no resource.
	ReasonAsterisk = "canon.asterisk"
	// ReasonRelative is a path that does not begin with "/".
	ReasonRelative = "canon.relative-path"
	// ReasonFragment is a fragment, or a raw "#" in path or query.
	ReasonFragment = "canon.fragment"
	// ReasonUserinfo is a user name or password in the target.
	ReasonUserinfo = "canon.userinfo"
	// ReasonScheme is an absolute target of a scheme other than http and https.
	ReasonScheme = "canon.bad-scheme"
	// ReasonBadHost is a host that is absent or not a host name or IP address.
	ReasonBadHost = "canon.bad-host"
	// ReasonForeignHost is an absolute target for another host than the request's.
	ReasonForeignHost = "canon.foreign-host"
	// ReasonPathTooLong is a path longer than Config.MaxPath.
	ReasonPathTooLong = "canon.path-too-long"
	// ReasonQueryTooLong is a query longer than Config.MaxQuery.
	ReasonQueryTooLong = "canon.query-too-long"
	// ReasonDotSegment is a segment of dots only, in any spelling.
	ReasonDotSegment = "canon.dot-segment"
	// ReasonEmptySegment is "//", or a segment that has parameters and no name.
	ReasonEmptySegment = "canon.empty-segment"
	// ReasonEncodedSlash is %2F where it is not allowed.
	ReasonEncodedSlash = "canon.encoded-slash"
	// ReasonBackslash is a backslash, raw or encoded.
	ReasonBackslash = "canon.backslash"
	// ReasonControlByte is a control byte, raw or encoded, or a raw space.
	ReasonControlByte = "canon.control-byte"
	// ReasonForbiddenByte is a raw byte that RFC 3986 has no place for in a path.
	ReasonForbiddenByte = "canon.forbidden-byte"
	// ReasonNonASCII is a raw byte from 0x80 on.
	ReasonNonASCII = "canon.non-ascii"
	// ReasonBadEscape is a "%" without two hexadecimal digits.
	ReasonBadEscape = "canon.bad-escape"
	// ReasonDoubleEncoding is an escape that decodes to another escape.
	ReasonDoubleEncoding = "canon.double-encoding"
	// ReasonBadUTF8 is a path or query that does not decode to UTF-8.
	ReasonBadUTF8 = "canon.bad-utf8"
	// ReasonParameter is a raw ";" where Config.RefuseParameters is set.
	ReasonParameter = "canon.path-parameter"
	// ReasonLetterCase is a letter outside ASCII that is not in its folded form
	// where Config.CaseInsensitive is set.
	ReasonLetterCase = "canon.letter-case"
	// ReasonTrailingDot is a segment that ends in a dot or a space where
	// Config.CaseInsensitive is set.
	ReasonTrailingDot = "canon.trailing-dot"
	// ReasonQuerySemicolon is a ";" in a query that a rule or limit reads.
	ReasonQuerySemicolon = "canon.query-semicolon"
)

// Refusal is why a request has no canonical target. It carries no byte of the
// request.
type Refusal struct {
	// Class says which status to answer.
	Class Class
	// Reason is one of the Reason constants.
	Reason string
}

// Error names the reason and nothing of what was sent.
func (r *Refusal) Error() string { return "request target refused: " + r.Reason }

func refuse(class Class, reason string) error {
	return &Refusal{Class: class, Reason: reason}
}
