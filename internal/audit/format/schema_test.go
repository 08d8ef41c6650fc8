package format_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
)

// validator checks an event against the extract of a schema in testdata.
type validator func(event map[string]any) []string

func validators(t testing.TB) map[string]validator {
	return map[string]validator{
		"ocsf":        readFacts[ocsfSchema](t, "ocsf-1.9.0.json").check,
		"ecs":         readFacts[ecsSchema](t, "ecs-9.5.0.json").check,
		"cloudevents": readFacts[ceSchema](t, "cloudevents-1.0.json").check,
	}
}

func readFacts[T any](t testing.TB, file string) *T {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	facts := new(T)
	if err := json.Unmarshal(data, facts); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return facts
}

// decode reads an event and keeps the digits of its numbers.
func decode(t testing.TB, text []byte) map[string]any {
	t.Helper()
	event, err := decodeObject(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return event
}

func decodeObject(text []byte) (map[string]any, error) {
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	var event map[string]any
	err := d.Decode(&event)
	return event, err
}

type ocsfAttribute struct {
	Type, Requirement, Object, Sibling, Profile string
	Array                                       bool
	Enum                                        map[string]string
}

type ocsfObject struct {
	Name         string
	CategoryUID  int      `json:"category_uid"`
	CategoryName string   `json:"category_name"`
	AtLeastOne   []string `json:"at_least_one"`
	Activities   map[string]string
	Attributes   map[string]ocsfAttribute
}

type ocsfSchema struct {
	Version string
	Base    map[string]ocsfAttribute
	Classes map[string]ocsfObject
	Objects map[string]ocsfObject
}

func (s *ocsfSchema) check(event map[string]any) (found []string) {
	uid := fmt.Sprint(event["class_uid"])
	class, known := s.Classes[uid]
	if !known {
		return []string{"class_uid " + uid + ": unknown class"}
	}
	all := map[string]ocsfAttribute{}
	for name, a := range s.Base {
		all[name] = a
	}
	for name, a := range class.Attributes {
		all[name] = a
	}
	activity := all["activity_id"]
	activity.Enum = class.Activities
	all["activity_id"] = activity
	metadata, _ := event["metadata"].(map[string]any)
	profiles := fmt.Sprint(metadata["profiles"])
	for name := range event {
		if p := all[name].Profile; p != "" && !regexp.MustCompile(`\b`+p+`\b`).MatchString(profiles) {
			found = append(found, name+": the profile "+p+" is not named in metadata.profiles")
		}
	}
	found = append(found, s.object("", event, ocsfObject{Attributes: all, AtLeastOne: class.AtLeastOne})...)
	return append(found, s.identity(event, uid, class)...)
}

// identity checks what follows from the class and the activity.
func (s *ocsfSchema) identity(event map[string]any, uid string, class ocsfObject) (found []string) {
	activity := fmt.Sprint(event["activity_id"])
	n, _ := strconv.Atoi(uid)
	a, _ := strconv.Atoi(activity)
	want := map[string]string{
		"type_uid": strconv.Itoa(n*100 + a), "class_name": class.Name, "category_name": class.CategoryName,
		"category_uid": strconv.Itoa(class.CategoryUID), "type_name": class.Name + ": " + fmt.Sprint(event["activity_name"]),
	}
	for name, value := range want {
		if got := fmt.Sprint(event[name]); got != value {
			found = append(found, fmt.Sprintf("%s: %s, not %s", name, got, value))
		}
	}
	metadata, _ := event["metadata"].(map[string]any)
	if metadata["version"] != s.Version {
		found = append(found, fmt.Sprintf("metadata.version: %v, not %s", metadata["version"], s.Version))
	}
	return found
}

func (s *ocsfSchema) object(at string, object map[string]any, facts ocsfObject) (found []string) {
	for name, a := range facts.Attributes {
		if _, has := object[name]; !has && a.Requirement == "required" {
			found = append(found, at+name+": required and missing")
		}
	}
	if len(facts.AtLeastOne) > 0 && !slices.ContainsFunc(facts.AtLeastOne, func(name string) bool { return object[name] != nil }) {
		found = append(found, at+": none of "+strings.Join(facts.AtLeastOne, ", "))
	}
	for name, value := range object {
		a, known := facts.Attributes[name]
		if !known {
			found = append(found, at+name+": unknown attribute")
			continue
		}
		values := []any{value}
		if a.Array {
			list, ok := value.([]any)
			if !ok {
				found = append(found, at+name+": no array")
			}
			values = list
		}
		for _, v := range values {
			found = append(found, s.value(at+name, v, a, object)...)
		}
	}
	return found
}

func (s *ocsfSchema) value(at string, v any, a ocsfAttribute, around map[string]any) []string {
	if a.Type == "object_t" {
		object, ok := v.(map[string]any)
		switch {
		case !ok:
			return []string{at + ": no object"}
		case a.Object == "object":
			return nil // unmapped: whatever the source has
		}
		facts, known := s.Objects[a.Object]
		if !known {
			return []string{at + ": unknown object " + a.Object}
		}
		return s.object(at+".", object, facts)
	}
	if !ocsfType(a.Type, v) {
		return []string{fmt.Sprintf("%s: %v is no %s", at, v, a.Type)}
	}
	if a.Enum == nil {
		return nil
	}
	caption, known := a.Enum[fmt.Sprint(v)]
	if !known {
		return []string{fmt.Sprintf("%s: %v is no value of the enumeration", at, v)}
	}
	label, labelled := around[a.Sibling]
	if labelled && fmt.Sprint(v) != "99" && label != caption {
		return []string{fmt.Sprintf("%s: %v is called %v, not %s", at, v, label, caption)}
	}
	if !labelled && fmt.Sprint(v) == "99" {
		return []string{at + ": 99 without a name"}
	}
	return nil
}

func ocsfType(kind string, v any) bool {
	n, isNumber := v.(json.Number)
	text, isText := v.(string)
	i, err := strconv.ParseInt(n.String(), 10, 64)
	switch kind {
	case "integer_t":
		return isNumber && err == nil && i >= -1<<31 && i < 1<<31
	case "long_t", "timestamp_t":
		return isNumber && err == nil
	case "port_t":
		return isNumber && err == nil && i >= 0 && i < 1<<16
	case "boolean_t":
		_, ok := v.(bool)
		return ok
	case "ip_t":
		_, err := netip.ParseAddr(text)
		return isText && err == nil
	case "json_t":
		return true
	}
	return isText && text != ""
}

type ecsSchema struct {
	Version    string
	Custom     []string
	Kinds      []string
	Outcomes   []string
	Types      []string
	Categories map[string][]string
	Fields     map[string]struct {
		Type, Allowed   string
		Required, Array bool
	}
}

func (s *ecsSchema) check(event map[string]any) (found []string) {
	flat := map[string]any{}
	for name, value := range event {
		if !slices.Contains(s.Custom, name) {
			flatten(flat, name, value)
		}
	}
	for name, f := range s.Fields {
		if _, has := flat[name]; !has && f.Required {
			found = append(found, name+": required and missing")
		}
	}
	for name, value := range flat {
		f, known := s.Fields[name]
		if !known {
			found = append(found, name+": unknown field")
			continue
		}
		list, isList := value.([]any)
		if isList != f.Array || isList && len(list) == 0 {
			found = append(found, fmt.Sprintf("%s: array %v with %d values, want %v", name, isList, len(list), f.Array))
			continue
		}
		if !isList {
			list = []any{value}
		}
		for _, v := range list {
			if !ecsType(f.Type, v) {
				found = append(found, fmt.Sprintf("%s: %v is no %s", name, v, f.Type))
			}
			if f.Allowed != "" && !slices.Contains(s.allowed(f.Allowed), fmt.Sprint(v)) {
				found = append(found, fmt.Sprintf("%s: %v is not allowed", name, v))
			}
		}
	}
	if flat["ecs.version"] != s.Version {
		found = append(found, fmt.Sprintf("ecs.version: %v", flat["ecs.version"]))
	}
	return append(found, s.combination(flat)...)
}

// flatten names the leaves of an object; a list is a leaf.
func flatten(flat map[string]any, name string, value any) {
	object, ok := value.(map[string]any)
	if !ok {
		flat[name] = value
		return
	}
	if len(object) == 0 {
		flat[name] = object
	}
	for key, v := range object {
		flatten(flat, name+"."+key, v)
	}
}

func (s *ecsSchema) allowed(list string) []string {
	switch list {
	case "kinds":
		return s.Kinds
	case "outcomes":
		return s.Outcomes
	case "types":
		return s.Types
	}
	var names []string
	for name := range s.Categories {
		names = append(names, name)
	}
	return names
}

// combination wants each type to be expected by one of the categories, and each
// category to expect one of the types.
func (s *ecsSchema) combination(flat map[string]any) (found []string) {
	categories, _ := flat["event.category"].([]any)
	kinds, _ := flat["event.type"].([]any)
	if len(categories) == 0 {
		return nil
	}
	expects := func(category, kind any) bool {
		return slices.Contains(s.Categories[fmt.Sprint(category)], fmt.Sprint(kind))
	}
	for _, kind := range kinds {
		if !slices.ContainsFunc(categories, func(c any) bool { return expects(c, kind) }) {
			found = append(found, fmt.Sprintf("event.type %v: not of %v", kind, categories))
		}
	}
	for _, c := range categories {
		if !slices.ContainsFunc(kinds, func(kind any) bool { return expects(c, kind) }) {
			found = append(found, fmt.Sprintf("event.category %v: expects none of %v", c, kinds))
		}
	}
	return found
}

func ecsType(kind string, v any) bool {
	text, isText := v.(string)
	switch kind {
	case "long":
		n, ok := v.(json.Number)
		_, err := strconv.ParseInt(n.String(), 10, 64)
		return ok && err == nil
	case "float":
		_, ok := v.(json.Number)
		return ok
	case "date":
		_, err := time.Parse(time.RFC3339, text)
		return isText && err == nil
	case "ip":
		_, err := netip.ParseAddr(text)
		return isText && err == nil
	}
	return isText && text != ""
}

type ceSchema struct {
	Attributes map[string]struct {
		Type, Value string
		Required    bool
	}
	Extensions map[string]string
}

var ceName = regexp.MustCompile(`^[a-z0-9]{1,20}$`)

func (s *ceSchema) check(event map[string]any) (found []string) {
	for name, a := range s.Attributes {
		value, has := event[name]
		switch {
		case !has && a.Required:
			found = append(found, name+": required and missing")
		case has && a.Value != "" && value != a.Value:
			found = append(found, fmt.Sprintf("%s: %v, not %s", name, value, a.Value))
		}
	}
	for name, value := range event {
		if name == "data" {
			continue
		}
		kind := s.Extensions[name]
		if a, core := s.Attributes[name]; core {
			kind = a.Type
		}
		switch {
		case !ceName.MatchString(name):
			found = append(found, name+": no name of an attribute")
		case kind == "":
			found = append(found, name+": unknown attribute")
		case !ceType(kind, value):
			found = append(found, fmt.Sprintf("%s: %v is no %s", name, value, kind))
		}
	}
	return found
}

func ceType(kind string, v any) bool {
	text, ok := v.(string)
	if !ok || text == "" {
		return false
	}
	for _, r := range text {
		if unicode.IsControl(r) || r == unicode.ReplacementChar || r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef {
			return false
		}
	}
	switch kind {
	case "URI-reference":
		u, err := url.Parse(text)
		return err == nil && u.String() == text && !strings.ContainsAny(text, " <>\"{}|\\^`")
	case "Timestamp":
		_, err := time.Parse(time.RFC3339, text)
		return err == nil
	}
	return true
}
