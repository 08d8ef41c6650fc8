package lint

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// object is a JSON object. What is not there, or of another kind than the
// module's, reads as nothing: whether a configuration loads is not asked here.
type object = map[string]any

func asObject(v any) object {
	o, _ := v.(object)
	return o
}

// objects returns the objects of a list; what is none of them is a nil object,
// so that indexes stay true.
func objects(v any) []object {
	items, _ := v.([]any)
	out := make([]object, len(items))
	for i, item := range items {
		out[i] = asObject(item)
	}
	return out
}

func texts(v any) []string {
	items, _ := v.([]any)
	var out []string
	for _, item := range items {
		out = append(out, text(item))
	}
	return out
}

// text returns a string, or a number as one: a status may be either.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return ""
}

// set reports whether a value says yes to something.
func set(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case float64:
		return v != 0
	case []any:
		return len(v) > 0
	case object:
		return len(v) > 0
	}
	return true
}

// dig returns what stands under a path of keys.
func dig(o object, keys ...string) any {
	var v any = o
	for _, key := range keys {
		v = asObject(v)[key]
	}
	return v
}

// visit calls f for every value of the tree, keys sorted, with its path.
func visit(path string, v any, f func(path, key string, parent object, value any)) {
	switch v := v.(type) {
	case object:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			below := join(path, key)
			f(below, key, v, v[key])
			visit(below, v[key], f)
		}
	case []any:
		for i, item := range v {
			visit(join(path, i), item, f)
		}
	}
}

// join adds a step to a path.
func join(path string, step any) string {
	if path == "" {
		return fmt.Sprint(step)
	}
	return fmt.Sprintf("%s/%v", path, step)
}
