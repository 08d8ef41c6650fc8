package otlp_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// record is a log record as a receiver finds it, read by the field numbers of
// the published protocol and not by the messages with which the sink writes.
type record struct {
	service, instance, scope string
	time, observed           uint64
	severity                 uint64
	severityText, body, name string
	attributes               map[string]any
	others                   []protowire.Number // fields that a record need not have
}

// message holds the values of a message's fields: integers, or bytes.
type message map[protowire.Number][]any

func messageOf(raw []byte) (message, error) {
	out := message{}
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		raw = raw[n:]
		var value any
		switch kind {
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(raw)
		case protowire.Fixed64Type:
			value, n = protowire.ConsumeFixed64(raw)
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(raw)
		default:
			return nil, fmt.Errorf("field %d has wire type %d", number, kind)
		}
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		out[number] = append(out[number], value)
		raw = raw[n:]
	}
	return out, nil
}

// inner returns the messages in a field.
func (m message) inner(number protowire.Number) ([]message, error) {
	var out []message
	for _, value := range m[number] {
		raw, ok := value.([]byte)
		if !ok {
			return nil, fmt.Errorf("field %d is no message", number)
		}
		inner, err := messageOf(raw)
		if err != nil {
			return nil, fmt.Errorf("field %d: %w", number, err)
		}
		out = append(out, inner)
	}
	return out, nil
}

func (m message) text(number protowire.Number) string {
	if len(m[number]) == 0 {
		return ""
	}
	raw, _ := m[number][0].([]byte)
	return string(raw)
}

func (m message) number(number protowire.Number) uint64 {
	if len(m[number]) == 0 {
		return 0
	}
	n, _ := m[number][0].(uint64)
	return n
}

// recordsOf reads an ExportLogsServiceRequest.
func recordsOf(raw []byte) ([]record, error) {
	request, err := messageOf(raw)
	if err != nil {
		return nil, err
	}
	groups, err := request.inner(1)
	if err != nil {
		return nil, err
	}
	var out []record
	for _, group := range groups {
		records, err := groupOf(group)
		if err != nil {
			return nil, err
		}
		out = append(out, records...)
	}
	return out, nil
}

// groupOf reads a ResourceLogs.
func groupOf(group message) ([]record, error) {
	resources, err := group.inner(1)
	if err != nil || len(resources) != 1 {
		return nil, fmt.Errorf("%d resources: %w", len(resources), err)
	}
	about, err := attributesOf(resources[0], 1)
	if err != nil {
		return nil, err
	}
	scopes, err := group.inner(2)
	if err != nil || len(scopes) != 1 {
		return nil, fmt.Errorf("%d scopes: %w", len(scopes), err)
	}
	scope, err := scopes[0].inner(1)
	if err != nil || len(scope) != 1 {
		return nil, fmt.Errorf("%d names of a scope: %w", len(scope), err)
	}
	records, err := scopes[0].inner(2)
	if err != nil {
		return nil, err
	}
	var out []record
	for _, fields := range records {
		r, err := recordOf(fields)
		if err != nil {
			return nil, err
		}
		r.service, _ = about["service.name"].(string)
		r.instance, _ = about["service.instance.id"].(string)
		r.scope = scope[0].text(1)
		out = append(out, r)
	}
	return out, nil
}

// recordOf reads a LogRecord.
func recordOf(fields message) (record, error) {
	r := record{
		time: fields.number(1), observed: fields.number(11),
		severity: fields.number(2), severityText: fields.text(3), name: fields.text(12),
	}
	body, err := fields.inner(5)
	if err != nil || len(body) != 1 || body[0][1] == nil {
		return r, fmt.Errorf("%d bodies, or none of text: %w", len(body), err)
	}
	r.body = body[0].text(1)
	for number := range fields {
		if number == 4 || number > 6 && number != 11 && number != 12 {
			r.others = append(r.others, number)
		}
	}
	r.attributes, err = attributesOf(fields, 6)
	return r, err
}

// attributesOf reads the attributes in a field. No key may come twice.
func attributesOf(m message, number protowire.Number) (map[string]any, error) {
	pairs, err := m.inner(number)
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	for _, pair := range pairs {
		values, err := pair.inner(2)
		if err != nil || len(values) != 1 {
			return nil, fmt.Errorf("%d values: %w", len(values), err)
		}
		key := pair.text(1)
		if _, twice := out[key]; twice {
			return nil, fmt.Errorf("attribute %q comes twice", key)
		}
		if out[key], err = valueOf(values[0]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// valueOf reads an AnyValue: a string, an int64 or a []any.
func valueOf(m message) (any, error) {
	switch {
	case m[1] != nil:
		return m.text(1), nil
	case m[3] != nil:
		return int64(m.number(3)), nil
	}
	array, err := m.inner(5)
	if err != nil || len(array) != 1 {
		return nil, fmt.Errorf("value %v: %w", m, err)
	}
	elements, err := array[0].inner(1)
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, element := range elements {
		value, err := valueOf(element)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	return list, nil
}

// unpacked undoes the content coding.
func unpacked(coding string, body []byte) ([]byte, error) {
	if coding == "" {
		return body, nil
	}
	if coding != "gzip" {
		return nil, fmt.Errorf("content coding %q", coding)
	}
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// partialSuccess writes an ExportLogsServiceResponse.
func partialSuccess(rejected int64, text string) []byte {
	var inner []byte
	inner = protowire.AppendTag(inner, 1, protowire.VarintType)
	inner = protowire.AppendVarint(inner, uint64(rejected))
	inner = protowire.AppendTag(inner, 2, protowire.BytesType)
	inner = protowire.AppendString(inner, text)
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), inner)
}
