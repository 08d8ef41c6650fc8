package format

import (
	"math"
	"strconv"

	"github.com/moat-gateway/moat/internal/audit"
)

// ocsfVersion is the release of the schema that appendOCSF writes.
const ocsfVersion = "1.9.0"

// ocsfClass is a class of OCSF events.
type ocsfClass struct {
	uid, categoryUID int64
	name, category   string
	// profiles is the JSON list of the profiles whose attributes are written.
	profiles string
}

var (
	httpClass       = ocsfClass{4002, 4, "HTTP Activity", "Network Activity", `["host","security_control"]`}
	lifecycleClass  = ocsfClass{6002, 6, "Application Lifecycle", "Application Activity", `["host"]`}
	managementClass = ocsfClass{uid: 3004, categoryUID: 3, name: "Entity Management", category: "Identity & Access Management"}
)

// appendOCSF writes every request, refused or not and for whatever reason, as HTTP
// Activity, so that one query over one class sees them all; the start and the end
// of the gateway as Application Lifecycle; and all that it or its operator did
// besides as Entity Management.
func appendOCSF(dst []byte, e *event) []byte {
	o := &object{append(dst, '{')}
	switch {
	case e.isRequest():
		o.ocsfHead(e, httpClass, methodActivity(e), e.values[timestamp])
		o.httpActivity(e)
	case e.isSummary():
		o.summary(e)
	default:
		o.ocsfOperation(e)
	}
	o.fingerprint(e)
	unmapped := o.open("unmapped")
	o.rest(e)
	o.close(unmapped)
	return append(o.b, '}')
}

// ocsfHead writes what every class has.
func (o *object) ocsfHead(e *event, c ocsfClass, a activity, when []byte) {
	o.number("activity_id", a.id)
	name := []byte(a.name)
	switch {
	case a.id == otherActivity:
		name = e.activityLabel()
	case a.name == "":
		name = []byte("Unknown")
	}
	o.text("activity_name", name)
	o.number("category_uid", c.categoryUID)
	o.label("category_name", c.category)
	o.number("class_uid", c.uid)
	o.label("class_name", c.name)
	o.number("type_uid", c.uid*100+a.id)
	o.name("type_name")
	o.b = append(append(append(append(o.b, '"'), c.name...), ": "...), name...)
	o.b = append(o.b, '"')
	o.ocsfSeverity(e)
	ms := int64(0) // There must be a time, also where the line tells none.
	if t, ok := moment(when); ok {
		ms = t.UnixMilli()
	}
	o.number("time", ms)
	o.ocsfStatus(e)
	o.message(e)
	o.metadata(e, c)
}

// activityLabel is what the source calls an activity that the schema does not
// know: a method, or an action.
func (e *event) activityLabel() []byte {
	if e.isRequest() {
		return e.text(method)
	}
	return e.text(action)
}

func (o *object) ocsfSeverity(e *event) {
	n, label := int64(0), "Unknown"
	switch audit.Severity(e.text(severity)) {
	case audit.Low:
		n, label = 2, "Low"
	case audit.Medium:
		n, label = 3, "Medium"
	case audit.High:
		n, label = 4, "High"
	}
	if n > 0 {
		e.done(severity)
	}
	o.number("severity_id", n)
	o.label("severity", label)
}

// ocsfStatus says how it ended. The outcome itself stays among the unmapped, as the
// one word that separates a failure from a refusal.
func (o *object) ocsfStatus(e *event) {
	switch audit.Outcome(e.text(outcome)) {
	case audit.Allow:
		o.number("status_id", 1)
		o.label("status", "Success")
	case audit.Deny, audit.Failure:
		o.number("status_id", 2)
		o.label("status", "Failure")
	case audit.Aborted:
		o.number("status_id", 99)
		o.label("status", string(audit.Aborted))
	default:
		o.number("status_id", 0)
		o.label("status", "Unknown")
	}
	if n, ok := whole(e.values[status], 999); ok && n > 0 {
		o.label("status_code", strconv.FormatInt(n, 10))
	}
	o.move("status_detail", e, reason)
}

func (o *object) metadata(e *event, c ocsfClass) {
	m := o.open("metadata")
	o.label("version", ocsfVersion)
	p := o.open("product")
	o.label("name", "Moat")
	o.label("vendor_name", "Moat")
	o.close(p)
	o.move("uid", e, id)
	// An integer of the schema has 32 bits. A greater number stays unmapped.
	o.count("sequence", e, seq, math.MaxInt32)
	o.move("correlation_uid", e, requestID)
	o.move("event_code", e, action)
	o.label("log_name", "moat.audit")
	o.move("log_source", e, instance)
	o.move("original_time", e, timestamp)
	o.move("tenant_uid", e, tenant)
	if c.profiles != "" {
		o.value("profiles", []byte(c.profiles))
	}
	o.close(m)
}

// httpActivity writes a request, or what many refused requests share.
func (o *object) httpActivity(e *event) {
	o.verdict(e)
	o.actor(e)
	o.endpoints(e)
	before := len(o.b)
	o.httpRequest(e)
	o.httpResponse(e)
	if len(o.b) == before {
		// The class wants one of the two, also when nothing is known of either.
		o.value("http_request", []byte("{}"))
	}
}

// verdict says what the gateway decided.
func (o *object) verdict(e *event) {
	act, disp := int64(0), disposition{0, "Unknown"}
	label := "Unknown"
	switch audit.Outcome(e.text(outcome)) {
	case audit.Deny:
		act, label, disp = 2, "Denied", dispositionOf(e.code())
	case audit.Allow, audit.Failure, audit.Aborted:
		// The gateway let it through; what became of it is in the status.
		act, label, disp = 1, "Allowed", disposition{1, "Allowed"}
	}
	o.number("action_id", act)
	o.label("action", label)
	o.number("disposition_id", disp.id)
	o.label("disposition", disp.name)
	if len(e.text(route)) > 0 {
		o.name("authorizations")
		o.b = append(o.b, '[', '{')
		o.label("decision", label)
		p := o.open("policy")
		o.move("name", e, route)
		o.close(p)
		o.b = append(o.b, '}', ']')
	}
}

// actor writes who it was.
func (o *object) actor(e *event) {
	kind := e.caller()
	if kind == noCaller {
		return
	}
	a, u := o.open("actor"), o.open("user")
	switch kind {
	case itself:
		o.move("name", e, userID)
		o.number("type_id", 3)
		o.label("type", "System")
	case nobody:
		o.move("name", e, userID)
		o.number("type_id", 0)
		o.label("type", "Unknown")
	default:
		o.move("uid", e, userID)
	}
	o.close(u)
	o.close(a)
}

func (o *object) endpoints(e *event) {
	s := o.open("src_endpoint")
	if _, ok := e.address(); ok {
		o.move("ip", e, ip)
	} else {
		o.move("uid", e, ip)
	}
	o.close(s)
	d := o.open("dst_endpoint")
	o.hostPort(e, "hostname")
	o.close(d)
}

// hostPort writes the requested host and its port.
func (o *object) hostPort(e *event, name string) {
	hostname, port := e.hostPort()
	o.text(name, hostname)
	if port != nil {
		o.value("port", port)
	}
	if len(hostname) > 0 {
		e.done(host)
	}
}

func (o *object) httpRequest(e *event) {
	r := o.open("http_request")
	if e.isRequest() {
		// A method that the schema does not list is the name of the activity.
		if methodActivity(e).id != otherActivity {
			o.text("http_method", e.text(method))
		}
		e.done(method)
		o.count("body_length", e, bytesIn, math.MaxInt32)
	}
	o.text("uid", e.text(requestID))
	if len(e.text(path)) > 0 {
		if string(e.values[resource]) == string(e.values[path]) {
			e.done(resource)
		}
		u := o.open("url")
		o.hostPort(e, "hostname")
		o.move("path", e, path)
		o.close(u)
	}
	o.close(r)
}

// httpResponse is written when there was an answer: the object wants its code.
func (o *object) httpResponse(e *event) {
	if n, ok := whole(e.values[status], math.MaxInt32); !ok || n == 0 {
		return
	}
	r := o.open("http_response")
	o.count("code", e, status, math.MaxInt32)
	o.count("body_length", e, bytesOut, math.MaxInt32)
	// Whole milliseconds. The exact time stays unmapped.
	if ns, ok := nanoseconds(e.values[durationMs]); ok && e.has(durationMs) && ns/1e6 <= math.MaxInt32 {
		o.number("latency", ns/1e6)
	}
	o.close(r)
}

// summary writes an event that stands for many requests. The schema wants the time
// of the first of them as the time of them all.
func (o *object) summary(e *event) {
	n, counted := whole(e.detail("count"), math.MaxInt32)
	from, begun := moment(e.detail("from"))
	to, ended := moment(e.detail("to"))
	if !counted || !begun || !ended {
		o.ocsfHead(e, httpClass, activity{}, e.values[timestamp])
		o.httpActivity(e)
		return
	}
	o.ocsfHead(e, httpClass, activity{}, e.detail("from"))
	o.number("count", n)
	o.number("start_time", from.UnixMilli())
	o.number("end_time", to.UnixMilli())
	o.number("duration", max(to.UnixMilli()-from.UnixMilli(), 0))
	o.httpActivity(e)
}

// ocsfOperation writes what no request did.
func (o *object) ocsfOperation(e *event) {
	op := operations[string(e.text(action))]
	if op.class != 0 && op.class == lifecycleClass.uid {
		o.ocsfHead(e, lifecycleClass, op.activity, e.values[timestamp])
		o.actor(e)
		a := o.open("application")
		if !o.move("name", e, resource) {
			o.label("name", gateway)
		}
		o.text("uid", e.text(instance))
		o.close(a)
		return
	}
	if op.id == 0 && len(e.text(action)) > 0 {
		op.id = otherActivity
	}
	o.ocsfHead(e, managementClass, op.activity, e.values[timestamp])
	o.actor(e)
	t := o.open("entity")
	if !o.move("name", e, resource) {
		o.label("name", gateway)
	}
	if op.entity == "" {
		o.number("type_id", 0)
		o.label("type", "Unknown")
	} else {
		o.number("type_id", 99)
		o.label("type", op.entity)
	}
	o.close(t)
}

// fingerprint writes the hash of the line, by which the event is found in the
// journal. It is no attestation of the schema's record_integrity profile: that one
// is a hash of the OCSF event, and names the event before it by its id, which one
// line does not tell. The hash of the line before stays unmapped as prev.
func (o *object) fingerprint(e *event) {
	f := o.open("raw_data_hash")
	o.label("algorithm", "SHA-256")
	o.number("algorithm_id", 3)
	o.number("encoding_id", 1)
	o.number("serialization_id", 1)
	o.hash("value", e)
	o.close(f)
	o.number("raw_data_size", int64(len(e.line)))
}

// nanoseconds reads a decimal number of milliseconds with at most six decimals.
func nanoseconds(value []byte) (int64, bool) {
	digits, fraction := value, []byte(nil)
	for i, c := range value {
		if c == '.' {
			digits, fraction = value[:i], value[i+1:]
			break
		}
	}
	ms, ok := whole(digits, math.MaxInt64/1_000_000-1)
	if !ok || len(fraction) > 6 {
		return 0, false
	}
	ns := ms
	for i := range 6 {
		ns *= 10
		if i >= len(fraction) {
			continue
		}
		if fraction[i] < '0' || fraction[i] > '9' {
			return 0, false
		}
		ns += int64(fraction[i] - '0')
	}
	return ns, true
}
