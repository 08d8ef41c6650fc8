package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxCaseDepth bounds how deep values may stand in each other.
const maxCaseDepth = 32

// parseDocument returns the value of a file in either format. What is JSON is
// read as JSON: a YAML parser reads some of it differently.
func parseDocument(data []byte) (*yaml.Node, error) {
	if json.Valid(data) {
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		return fromJSON(d, data, 0)
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	if err := d.Decode(&document); errors.Is(err, io.EOF) {
		return nil, errors.New("is empty")
	} else if err != nil {
		return nil, fmt.Errorf("is neither YAML nor JSON: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("has more than one document")
	}
	return document.Content[0], checkNodes(&document, 0)
}

// checkNodes refuses anchors and aliases: what a case asks must stand where it
// is read.
func checkNodes(n *yaml.Node, depth int) error {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return fmt.Errorf("line %d: anchors and aliases are not allowed", n.Line)
	case depth > maxCaseDepth:
		return fmt.Errorf("line %d: nested too deep", n.Line)
	}
	for _, child := range n.Content {
		if err := checkNodes(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// fromJSON reads the next value of valid JSON.
func fromJSON(d *json.Decoder, data []byte, depth int) (*yaml.Node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: 1 + bytes.Count(data[:d.InputOffset()], []byte{'\n'})}
	switch value := token.(type) {
	case string:
		n.Tag, n.Value = "!!str", value
	case json.Number:
		n.Tag, n.Value = "!!float", value.String()
		if _, err := value.Int64(); err == nil {
			n.Tag = "!!int"
		}
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(value)
	case nil:
		n.Tag, n.Value = "!!null", "null"
	case json.Delim:
		return n, fillJSON(n, value, d, data, depth)
	}
	return n, nil
}

// fillJSON reads the values of a list or an object up to its end.
func fillJSON(n *yaml.Node, open json.Delim, d *json.Decoder, data []byte, depth int) error {
	if depth > maxCaseDepth {
		return fmt.Errorf("line %d: nested too deep", n.Line)
	}
	n.Kind = yaml.SequenceNode
	if open == '{' {
		n.Kind = yaml.MappingNode
	}
	for d.More() {
		child, err := fromJSON(d, data, depth+1)
		if err != nil {
			return err
		}
		n.Content = append(n.Content, child)
	}
	_, err := d.Token()
	return err
}
