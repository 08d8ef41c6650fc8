package format

import (
	"math"
	"slices"

	"github.com/moat-gateway/moat/internal/audit"
	"github.com/moat-gateway/moat/internal/audit/jsonline"
)

// ecsVersion is the release of the Elastic Common Schema that appendECS writes.
const ecsVersion = "9.5.0"

// epochStart stands for a time that a line does not tell: an event must have one.
const epochStart = "1970-01-01T00:00:00.000Z"

func appendECS(dst []byte, e *event) []byte {
	o := &object{append(dst, '{')}
	if isMoment(e.values[timestamp]) {
		o.move("@timestamp", e, timestamp)
	} else {
		o.label("@timestamp", epochStart)
	}
	v := o.open("ecs")
	o.label("version", ecsVersion)
	o.close(v)
	o.message(e)
	o.ecsEvent(e)
	o.ecsUser(e)
	o.ecsClient(e)
	o.ecsHTTP(e)
	o.ecsOrigin(e)
	m := o.open("moat")
	o.rest(e)
	o.close(m)
	return append(o.b, '}')
}

// ecsEvent writes what happened and where in ECS's categories it belongs. The
// outcome and the severity stay under moat too, as they are words of ours that the
// schema's do not tell apart.
func (o *object) ecsEvent(e *event) {
	v := o.open("event")
	o.label("kind", "event")
	if categories, kinds := e.categories(); len(kinds) > 0 {
		if len(categories) > 0 {
			o.labels("category", categories...)
		}
		o.labels("type", kinds...)
	}
	o.label("outcome", ecsOutcome(e))
	o.move("action", e, action)
	o.move("id", e, id)
	o.text("code", inner(e.detail("code")))
	o.move("reason", e, reason)
	if n := ecsSeverity(e); n > 0 {
		o.number("severity", n)
	}
	o.count("sequence", e, seq, math.MaxInt64)
	if ns, ok := nanoseconds(e.values[durationMs]); ok && e.has(durationMs) {
		o.number("duration", ns)
		e.done(durationMs)
	}
	if e.isSummary() {
		o.ecsSpan(e)
	}
	o.label("module", "moat")
	o.label("dataset", "moat.audit")
	o.hash("hash", e)
	o.close(v)
}

// ecsSpan writes when the first and the last of the summed up requests came.
func (o *object) ecsSpan(e *event) {
	if from := e.detail("from"); isMoment(from) {
		o.value("start", from)
	}
	if to := e.detail("to"); isMoment(to) {
		o.value("end", to)
	}
}

// categories are event.category and event.type. A request is of the network, where
// firewalls are, and of the web. One that was refused because of its token is of
// authentication too, where searches for guessed credentials look.
func (e *event) categories() (categories, kinds []string) {
	if !e.isRequest() && !e.isSummary() {
		op, known := operations[string(e.text(action))]
		if !known {
			return nil, []string{"info"}
		}
		return []string{op.category}, []string{op.kind}
	}
	categories, kinds = []string{"network", "web"}, []string{"access"}
	switch audit.Outcome(e.text(outcome)) {
	case audit.Allow, audit.Aborted:
		return categories, append(kinds, "allowed")
	case audit.Failure:
		return categories, append(kinds, "allowed", "error")
	case audit.Deny:
		kinds = append(kinds, "denied")
	default:
		return categories, kinds
	}
	if slices.Contains([]string{"token-invalid", "token-expired", "token-revoked"}, e.code()) {
		return append(categories, "authentication"), append(kinds, "info")
	}
	return categories, kinds
}

func ecsOutcome(e *event) string {
	switch audit.Outcome(e.text(outcome)) {
	case audit.Allow:
		return "success"
	case audit.Deny, audit.Failure:
		return "failure"
	}
	return "unknown"
}

// ecsSeverity is the number that Kibana shows as the same word.
func ecsSeverity(e *event) int64 {
	switch audit.Severity(e.text(severity)) {
	case audit.Low:
		return 21
	case audit.Medium:
		return 47
	case audit.High:
		return 73
	}
	return 0
}

// ecsUser writes who it was. A pseudonym is what ECS calls the hash of a user.
func (o *object) ecsUser(e *event) {
	u := o.open("user")
	switch e.caller() {
	case caller:
		o.move("id", e, userID)
	case pseudonym:
		o.move("hash", e, userID)
	case itself, nobody:
		o.move("name", e, userID)
	}
	if isWords(e.values[roles]) {
		o.value("roles", e.values[roles])
		e.done(roles)
	}
	o.close(u)
}

// isWords reports whether a value is a list of strings with something in
// each and at least one.
func isWords(value []byte) bool {
	if len(value) <= len("[]") || value[0] != '[' {
		return false
	}
	words := 0
	for i := 1; i < len(value)-1; {
		switch c := value[i]; {
		case c == '"':
			n := jsonline.StringEnd(value[i:])
			if n == len(`""`) {
				return false
			}
			words++
			i += n
		case c == ',' || jsonline.IsSpace(c):
			i++
		default:
			return false
		}
	}
	return words > 0
}

// ecsClient writes the address twice, as ECS asks of a proxy: who sent the request
// is its client, and the source of the connection as far as the gateway trusts it.
func (o *object) ecsClient(e *event) {
	text := e.text(ip)
	if len(text) == 0 {
		return
	}
	_, isAddress := e.address()
	for _, name := range []string{"client", "source"} {
		c := o.open(name)
		o.text("address", text)
		if isAddress {
			o.text("ip", text)
		}
		o.close(c)
	}
	if isAddress {
		r := o.open("related")
		o.name("ip")
		o.b = append(append(append(o.b, `["`...), text...), `"]`...)
		o.close(r)
	}
	e.done(ip)
}

func (o *object) ecsHTTP(e *event) {
	u := o.open("url")
	o.hostPort(e, "domain")
	if len(e.text(path)) > 0 && string(e.values[resource]) == string(e.values[path]) {
		e.done(resource)
	}
	o.move("path", e, path)
	o.close(u)
	h, r := o.open("http"), o.open("request")
	o.move("id", e, requestID)
	o.move("method", e, method)
	o.ecsBody(e, bytesIn)
	o.close(r)
	r = o.open("response")
	o.count("status_code", e, status, math.MaxInt64)
	o.ecsBody(e, bytesOut)
	o.close(r)
	o.close(h)
}

func (o *object) ecsBody(e *event, f field) {
	b := o.open("body")
	o.count("bytes", e, f, math.MaxInt64)
	o.close(b)
}

// ecsOrigin writes the gateway, the tenant and the rule.
func (o *object) ecsOrigin(e *event) {
	v := o.open("observer")
	o.move("name", e, instance)
	o.label("type", "proxy")
	o.label("product", "Moat")
	o.label("vendor", "Moat")
	o.close(v)
	g := o.open("organization")
	o.move("id", e, tenant)
	o.close(g)
	r := o.open("rule")
	o.move("name", e, route)
	o.close(r)
}
