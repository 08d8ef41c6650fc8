package policyfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxDepth bounds how deep a file's values may stand in each other.
const maxDepth = 16

type kind uint8

const (
	scalar kind = iota
	list
	object
)

// node is one value of a file, of whichever format, with its line.
type node struct {
	kind  kind
	line  int
	text  string // of a scalar
	isNil bool
	items []*node
	names []*node // of an object, beside items
}

// parse reads a file. What begins like JSON is JSON, everything else YAML: a
// YAML parser reads some JSON differently.
func parse(data []byte) (*node, error) {
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	if len(trimmed) == 0 {
		return nil, errors.New("is empty")
	}
	if (trimmed[0] == '{' || trimmed[0] == '[') && json.Valid(data) {
		return parseJSON(data)
	}
	return parseYAML(data)
}

func parseYAML(data []byte) (*node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		return nil, fmt.Errorf("is neither JSON nor YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("has more than one document")
	}
	return fromYAML(document.Content[0], 0)
}

func fromYAML(y *yaml.Node, depth int) (*node, error) {
	n := &node{line: y.Line}
	switch {
	case depth > maxDepth:
		return nil, fmt.Errorf("line %d: nested too deep", y.Line)
	case y.Kind == yaml.AliasNode || y.Anchor != "":
		// An anchor can make a small file a very large policy, and a policy that
		// has to be read in two places is hard to review.
		return nil, fmt.Errorf("line %d: anchors and aliases are not allowed", y.Line)
	case y.Kind == yaml.ScalarNode:
		n.text, n.isNil = y.Value, y.Tag == "!!null"
		return n, nil
	case y.Kind == yaml.SequenceNode:
		n.kind = list
	default:
		n.kind = object
	}
	for i, child := range y.Content {
		c, err := fromYAML(child, depth+1)
		if err != nil {
			return nil, err
		}
		if n.kind == object && i%2 == 0 {
			n.names = append(n.names, c)
			continue
		}
		n.items = append(n.items, c)
	}
	return n, n.unique()
}

// jsonReader reads JSON and knows on which line it is.
type jsonReader struct {
	*json.Decoder
	data   []byte
	offset int64
	line   int
}

func parseJSON(data []byte) (*node, error) {
	r := &jsonReader{Decoder: json.NewDecoder(bytes.NewReader(data)), data: data, line: 1}
	r.UseNumber()
	return r.value(0)
}

func (r *jsonReader) value(depth int) (*node, error) {
	token, err := r.Token()
	if err != nil {
		return nil, err
	}
	r.line += bytes.Count(r.data[r.offset:r.InputOffset()], []byte{'\n'})
	r.offset = r.InputOffset()
	n := &node{line: r.line}
	delim, isDelim := token.(json.Delim)
	switch {
	case depth > maxDepth:
		return nil, fmt.Errorf("line %d: nested too deep", n.line)
	case !isDelim:
		n.text, n.isNil = fmt.Sprint(token), token == nil
		return n, nil
	case delim == '{':
		n.kind = object
	default:
		n.kind = list
	}
	for r.More() {
		c, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if n.kind == object && len(n.names) == len(n.items) {
			n.names = append(n.names, c)
			continue
		}
		n.items = append(n.items, c)
	}
	if _, err := r.Token(); err != nil {
		return nil, err
	}
	return n, n.unique()
}

// unique refuses an object that says one thing twice: which of the two counts
// would be the parser's choice.
func (n *node) unique() error {
	seen := make(map[string]bool, len(n.names))
	for _, name := range n.names {
		if name.kind != scalar {
			return fmt.Errorf("line %d: a name is text", name.line)
		}
		if seen[name.text] {
			return fmt.Errorf("line %d: %q stands twice", name.line, name.text)
		}
		seen[name.text] = true
	}
	return nil
}
