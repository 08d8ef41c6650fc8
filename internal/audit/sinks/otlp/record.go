package otlp

import (
	"encoding/json"
	"errors"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/moat-gateway/moat/internal/audit/follow"
)

const (
	// eventName is that of all events. Events of one name have one structure
	// and few names are wanted; an action is the value of an attribute.
	eventName = "moat.audit"
	scopeName = "github.com/moat-gateway/moat"
)

// event is what attributes are made of. All of it is in the body as well.
type event struct {
	Timestamp string   `json:"timestamp"`
	UserID    string   `json:"userId"`
	Action    string   `json:"action"`
	IP        string   `json:"ip"`
	ID        string   `json:"id"`
	Outcome   string   `json:"outcome"`
	Reason    string   `json:"reason"`
	Severity  string   `json:"severity"`
	RequestID string   `json:"requestId"`
	Tenant    string   `json:"tenant"`
	Roles     []string `json:"roles"`
	Method    string   `json:"method"`
	Host      string   `json:"host"`
	Path      string   `json:"path"`
	Route     string   `json:"route"`
	Status    int64    `json:"status"`
	BytesIn   int64    `json:"bytesIn"`
	BytesOut  int64    `json:"bytesOut"`
}

// requestOf returns the request that carries the lines in their order. A line of
// another instance than the one before begins a new group, so there is one per
// instance unless an instance comes back.
func requestOf(lines []follow.Line, now time.Time) (*collector.ExportLogsServiceRequest, error) {
	request := &collector.ExportLogsServiceRequest{}
	var scope *logs.ScopeLogs
	for i, line := range lines {
		if !utf8.Valid(line.Content()) {
			return nil, &follow.Poison{Index: i, Err: errors.New("otlp: the line is no valid UTF-8, as protobuf's text must be")}
		}
		if i == 0 || line.Instance != lines[i-1].Instance {
			scope = &logs.ScopeLogs{Scope: &common.InstrumentationScope{Name: scopeName}}
			request.ResourceLogs = append(request.ResourceLogs, &logs.ResourceLogs{
				Resource: resourceOf(line.Instance), ScopeLogs: []*logs.ScopeLogs{scope},
			})
		}
		scope.LogRecords = append(scope.LogRecords, recordOf(line, now))
	}
	return request, nil
}

func resourceOf(instance string) *resource.Resource {
	var list attributes
	list.text("service.name", "moat")
	list.text("service.instance.id", instance)
	return &resource.Resource{Attributes: list}
}

// recordOf maps one line. A field of another type than it should have is left
// out of the attributes, and still stands in the body.
func recordOf(line follow.Line, now time.Time) *logs.LogRecord {
	var e event
	_ = json.Unmarshal(line.Raw, &e) // goes on behind a field of the wrong type
	at := nanoseconds(e.Timestamp)
	record := &logs.LogRecord{
		TimeUnixNano: at,
		// The gateway observes its own events as they happen. The time of the
		// delivery would make two of the same record differ.
		ObservedTimeUnixNano: at,
		SeverityNumber:       severities[e.Severity],
		SeverityText:         e.Severity,
		Body:                 textValue(string(line.Content())),
		EventName:            eventName,
		Attributes:           attributesOf(line, e),
	}
	if at == 0 {
		record.ObservedTimeUnixNano = uint64(now.UnixNano())
	}
	return record
}

// severities ranks Moat's severities among those of a log. Everyday life is
// INFO; what deserves a look when it piles up is WARN; what deserves one now is
// ERROR and no more, since FATAL is the end of a program. What is none of them
// is unspecified.
var severities = map[string]logs.SeverityNumber{
	"low":    logs.SeverityNumber_SEVERITY_NUMBER_INFO,
	"medium": logs.SeverityNumber_SEVERITY_NUMBER_WARN,
	"high":   logs.SeverityNumber_SEVERITY_NUMBER_ERROR,
}

// nanoseconds returns the time since 1970, or zero, which OTLP reads as
// unknown, for a time that is none or that 64 bits cannot hold.
func nanoseconds(text string) uint64 {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || at.Year() < 1970 || at.Year() > 2261 {
		return 0
	}
	return uint64(max(0, at.UnixNano()))
}

// attributesOf returns the attributes that have a value, by the names of the
// semantic conventions (1.43) where those have one.
func attributesOf(line follow.Line, e event) attributes {
	list := make(attributes, 0, 24)
	if line.Seq <= math.MaxInt64 {
		list.number("moat.seq", int64(line.Seq))
	}
	list.text("moat.epoch", line.Epoch)
	list.text("moat.class", line.Class)
	list.text("moat.action", e.Action)
	list.text("moat.outcome", e.Outcome)
	list.text("moat.reason", e.Reason)
	list.text("moat.request_id", e.RequestID)
	list.text("moat.tenant", e.Tenant)
	list.text("log.record.uid", e.ID)
	list.text("client.address", e.IP)
	if e.UserID != "anonymous" { // says that there is no user
		list.text("user.id", e.UserID)
	}
	list.texts("user.roles", e.Roles)
	list.method(e.Method)
	list.server(e.Host)
	list.text("url.path", e.Path)
	list.text("http.route", e.Route)
	list.number("http.response.status_code", e.Status)
	list.number("http.request.body.size", e.BytesIn)
	list.number("http.response.body.size", e.BytesOut)
	return list
}

// attributes grows by those that have a value.
type attributes []*common.KeyValue

func (a *attributes) put(key string, value *common.AnyValue) {
	*a = append(*a, &common.KeyValue{Key: key, Value: value})
}

// text adds a string, by far the most frequent kind, with one allocation
// instead of three.
func (a *attributes) text(key, value string) {
	if value == "" {
		return
	}
	var at struct {
		pair  common.KeyValue
		value common.AnyValue
		text  common.AnyValue_StringValue
	}
	at.text.StringValue = value
	at.value.Value = &at.text
	at.pair.Key, at.pair.Value = key, &at.value
	*a = append(*a, &at.pair)
}

func (a *attributes) number(key string, value int64) {
	if value != 0 {
		a.put(key, &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: value}})
	}
}

func (a *attributes) texts(key string, values []string) {
	if len(values) == 0 {
		return
	}
	array := &common.ArrayValue{}
	for _, value := range values {
		array.Values = append(array.Values, textValue(value))
	}
	a.put(key, &common.AnyValue{Value: &common.AnyValue_ArrayValue{ArrayValue: array}})
}

// methods are those that the conventions know.
var methods = []string{"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}

// method keeps what a client made up out of an attribute by which a receiver
// may index.
func (a *attributes) method(method string) {
	if method == "" || slices.Contains(methods, method) {
		a.text("http.request.method", method)
		return
	}
	a.text("http.request.method", "_OTHER")
	a.text("http.request.method_original", method)
}

// server takes the requested host apart.
func (a *attributes) server(host string) {
	address, port, err := net.SplitHostPort(host)
	if err != nil {
		address = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	a.text("server.address", address)
	if number, err := strconv.ParseUint(port, 10, 16); err == nil {
		a.number("server.port", int64(number))
	}
}

func textValue(text string) *common.AnyValue {
	return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: text}}
}
