package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// format is the form data is printed in; it implements pflag.Value.
type format string

const (
	formatText  format = "text"
	formatJSON  format = "json"
	formatJSONL format = "jsonl"
	formatYAML  format = "yaml"
)

func (f *format) String() string { return string(*f) }

func (f *format) Type() string { return "FORMAT" }

func (f *format) Set(s string) error {
	switch v := format(s); v {
	case formatText, formatJSON, formatJSONL, formatYAML:
		*f = v
		return nil
	}
	return fmt.Errorf("must be text, json, jsonl or yaml")
}

// ForPeople reports whether results are printed for people and not for programs.
func (c *CLI) ForPeople() bool { return c.flags.output == formatText }

// Endless says that the result comes in parts for as long as a person likes: a document that
// never ends is none, so for programs each part is a line.
func (c *CLI) Endless() {
	if !c.ForPeople() {
		c.flags.output = formatJSONL
	}
}

// Print writes a command's result to standard output in the form -o asks for. text
// writes the form for people. In the others v gets the member "schema" first; a
// list becomes its member "items", or one line each in jsonl.
func (c *CLI) Print(schema string, v any, text func(w io.Writer)) error {
	c.printed = true
	if c.ForPeople() {
		var b bytes.Buffer
		text(&b)
		_, err := c.Std.Out.Write(b.Bytes())
		return err
	}
	raw, err := marshal(v)
	if err != nil {
		return err
	}
	if len(raw) > 0 && raw[0] == '[' {
		if c.flags.output != formatJSONL {
			raw = append(append([]byte(`{"items":`), raw...), '}')
		} else {
			var items []json.RawMessage
			if err := json.Unmarshal(raw, &items); err != nil {
				return err
			}
			for _, item := range items {
				if err := c.printObject(schema, item); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return c.printObject(schema, raw)
}

// PrintLine writes v as a line of jsonl, whatever form -o asks for.
func (c *CLI) PrintLine(schema string, v any) error {
	raw, err := marshal(v)
	if err != nil {
		return err
	}
	b, err := render(formatJSONL, schema, raw)
	if err != nil {
		return err
	}
	_, err = c.Data().Write(b)
	return err
}

// Data is standard output for what has a form of its own, such as a schema, and keeps it
// whatever -o asks for.
func (c *CLI) Data() io.Writer {
	c.printed = true
	return c.Std.Out
}

func (c *CLI) printObject(schema string, raw []byte) error {
	b, err := render(c.flags.output, schema, raw)
	if err != nil {
		return err
	}
	_, err = c.Std.Out.Write(b)
	return err
}

// marshal is json.Marshal without the escapes that only HTML needs.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding the output: %w", err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// render puts schema into the object raw and lays it out as f, with a final newline.
func render(f format, schema string, raw []byte) ([]byte, error) {
	if len(raw) < 2 || raw[0] != '{' {
		return nil, fmt.Errorf("encoding the output: %s is not an object", schema)
	}
	head := `{"schema":"` + schema + `"`
	if raw[1] != '}' {
		head += ","
	}
	one := append([]byte(head), raw[1:]...)
	switch f {
	case formatJSONL:
		return append(one, '\n'), nil
	case formatYAML:
		// JSON is YAML, so this keeps the order of the members; only the style changes.
		var node yaml.Node
		if err := yaml.Unmarshal(one, &node); err != nil {
			return nil, fmt.Errorf("encoding the output: %w", err)
		}
		blockStyle(&node)
		return yaml.Marshal(&node)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, one, "", "  "); err != nil {
		return nil, fmt.Errorf("encoding the output: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

func blockStyle(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		blockStyle(child)
	}
}
