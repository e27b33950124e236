package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Values returns the configuration cfg points to as nested maps and lists.
func Values(cfg any) (map[string]any, error) {
	m, ok := plain(reflect.ValueOf(cfg).Elem()).(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%T is not a configuration", cfg)
	}
	return m, nil
}

// Show prints the configuration cfg points to as a file that gives it again, with
// the origin of each key in a comment.
func Show(cfg any, origins map[string]string) ([]byte, error) {
	node := tree(reflect.ValueOf(cfg).Elem(), "", func(key string, name, value *yaml.Node) {
		// yaml puts the comment of a list on its own line; beside the key it stays with it.
		at := value
		if value.Kind == yaml.SequenceNode && len(value.Content) > 0 {
			at = name
		}
		at.LineComment = origins[key]
	})
	return encode(node)
}

// Example prints every key with its default, and what it means in a comment.
func Example(cfg any) ([]byte, error) {
	v := reflect.ValueOf(cfg).Elem()
	docs := map[string]string{}
	collectDocs(v.Type(), "", docs)
	node := tree(v, "", func(key string, name, value *yaml.Node) { name.HeadComment = docs[key] })
	for i := 0; i+1 < len(node.Content); i += 2 {
		// What an entry of a list holds is shown as comments: the list itself is empty.
		value := node.Content[i+1]
		if f, ok := fieldByKey(v.Type(), node.Content[i].Value); ok && f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct {
			text, err := entryComment(f.Type.Elem(), node.Content[i].Value)
			if err != nil {
				return nil, err
			}
			node.Content[i].HeadComment += "\n" + text
			value.Style = yaml.FlowStyle
		}
	}
	return encode(node)
}

// entryComment shows an entry of a list of structs: each key and what it means.
func entryComment(t reflect.Type, list string) (string, error) {
	docs := map[string]string{}
	collectDocs(t, "", docs)
	item := tree(entry(t), "", func(key string, name, value *yaml.Node) {
		if value.Kind != yaml.MappingNode {
			value.LineComment = docs[key]
		}
	})
	text, err := encode(&yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{item}})
	if err != nil {
		return "", err
	}
	return list + ":\n" + strings.TrimRight(string(text), "\n"), nil
}

func collectDocs(t reflect.Type, prefix string, docs map[string]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name := prefix + f.Tag.Get("yaml")
		docs[name] = f.Tag.Get("doc")
		if f.Type.Kind() == reflect.Struct && !isText(f.Type) {
			collectDocs(f.Type, name+".", docs)
		}
	}
}

// tree builds the YAML of a configuration and calls note for every key in it.
func tree(v reflect.Value, prefix string, note func(key string, name, value *yaml.Node)) *yaml.Node {
	node := &yaml.Node{Kind: yaml.MappingNode}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := &yaml.Node{Kind: yaml.ScalarNode, Value: f.Tag.Get("yaml")}
		key := prefix + name.Value
		var value *yaml.Node
		if f.Type.Kind() == reflect.Struct && !isText(f.Type) {
			value = tree(v.Field(i), key+".", note)
		} else {
			value = &yaml.Node{}
			if err := value.Encode(plain(v.Field(i))); err != nil {
				value = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"} // cannot happen: plain gives plain values
			}
			if value.Kind == yaml.ScalarNode && isText(f.Type) && value.Value == "0" {
				value.Style, value.Tag = 0, "!!int" // a bare number is a size as well
			}
		}
		note(key, name, value)
		node.Content = append(node.Content, name, value)
	}
	return node
}

func encode(node *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(node); err != nil {
		return nil, fmt.Errorf("printing the configuration: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("printing the configuration: %w", err)
	}
	return b.Bytes(), nil
}

// Schema is the JSON Schema of the configuration cfg points to, for editors.
func Schema(cfg any) ([]byte, error) {
	s := schemaOf(reflect.ValueOf(cfg).Elem(), "")
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

func schemaOf(v reflect.Value, doc string) map[string]any {
	s := map[string]any{}
	if doc != "" {
		s["description"] = doc
	}
	t := v.Type()
	switch {
	case isText(t):
		s["type"] = []string{"string", "integer"}
	case t.Kind() == reflect.Struct:
		properties := map[string]any{}
		for i := range t.NumField() {
			f := t.Field(i)
			properties[f.Tag.Get("yaml")] = schemaOf(v.Field(i), f.Tag.Get("doc"))
		}
		s["type"], s["properties"], s["additionalProperties"] = "object", properties, false
		return s
	case t.Kind() == reflect.Slice:
		s["type"], s["items"] = "array", schemaOf(entry(t.Elem()), "")
		return s
	case t.Kind() == reflect.Bool:
		s["type"] = "boolean"
	case t.Kind() == reflect.Int:
		s["type"] = "integer"
	default:
		s["type"] = "string"
	}
	if !v.IsZero() {
		s["default"] = plain(v)
	}
	return s
}
