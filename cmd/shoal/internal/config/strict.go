package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// isText reports whether t reads itself from text, as sizes and durations do.
func isText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(textUnmarshaler) }

// leaf is a key that is set as a whole: a scalar or a list.
type leaf struct {
	name  string
	index []int // for reflect.Value.FieldByIndex
	typ   reflect.Type
}

func leaves(t reflect.Type, prefix string) []leaf {
	var out []leaf
	for i := range t.NumField() {
		f := t.Field(i)
		name := prefix + f.Tag.Get("yaml")
		if f.Type.Kind() == reflect.Struct && !isText(f.Type) {
			for _, inner := range leaves(f.Type, name+".") {
				inner.index = append([]int{i}, inner.index...)
				out = append(out, inner)
			}
			continue
		}
		out = append(out, leaf{name: name, index: []int{i}, typ: f.Type})
	}
	return out
}

// entry returns an entry of a list of ts as it is when nothing is said of it: its
// defaults are in the tags of its fields.
func entry(t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	if t.Kind() != reflect.Struct || isText(t) {
		return v
	}
	for i := range t.NumField() {
		if text, ok := t.Field(i).Tag.Lookup("default"); ok {
			if d, err := scalarFromText(text, t.Field(i).Type); err == nil {
				v.Field(i).Set(reflect.ValueOf(d))
			}
		}
	}
	return v
}

// plain turns a value into what viper stores: maps, lists, text and numbers.
func plain(v reflect.Value) any {
	if isText(v.Type()) {
		if m, ok := v.Interface().(fmt.Stringer); ok {
			return m.String()
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		m := map[string]any{}
		for i := range v.NumField() {
			m[v.Type().Field(i).Tag.Get("yaml")] = plain(v.Field(i))
		}
		return m
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = plain(v.Index(i))
		}
		return list
	}
	return v.Interface()
}

// reader walks a YAML tree against a type and collects every problem, so that a
// person mends a file once and not key by key.
type reader struct {
	path     string
	top      reflect.Type
	lines    map[string]int
	problems []string
}

func (r *reader) problem(n *yaml.Node, format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf("%s:%d: ", r.path, n.Line)+fmt.Sprintf(format, args...))
}

// value returns n as a value of type t in plain form, or nil when n is null or wrong.
func (r *reader) value(n *yaml.Node, t reflect.Type, key string) any {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		// An alias may repeat itself without end; nothing here is long enough to need one.
		r.problem(n, "anchors and aliases are not understood here")
		return nil
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil
	case isText(t) || t.Kind() != reflect.Struct && t.Kind() != reflect.Slice:
		return r.scalar(n, t, key)
	case t.Kind() == reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			r.problem(n, "%q must be a list", key)
			return nil
		}
		list := []any{}
		for i, item := range n.Content {
			if v := r.value(item, t.Elem(), fmt.Sprintf("%s[%d]", key, i)); v != nil {
				list = append(list, v)
			}
		}
		return list
	}
	return r.object(n, t, key)
}

func (r *reader) object(n *yaml.Node, t reflect.Type, key string) any {
	if n.Kind != yaml.MappingNode {
		what := fmt.Sprintf("%q must have keys of its own", key)
		if key == "" {
			what = "the file must be a list of keys and values"
		}
		r.problem(n, "%s: %s", what, strings.Join(fieldNames(t), ", "))
		return nil
	}
	out := map[string]any{}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i].Value, n.Content[i+1]
		full := name
		if key != "" {
			full = key + "." + name
		}
		field, ok := fieldByKey(t, name)
		if !ok {
			r.problem(n.Content[i], "unknown key %q%s", name, r.suggest(t, name))
			continue
		}
		if seen[name] {
			r.problem(n.Content[i], "key %q is there twice", name)
			continue
		}
		seen[name] = true
		if v := r.value(value, field.Type, full); v != nil {
			out[name] = v
			r.lines[full] = n.Content[i].Line
		}
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if text, ok := f.Tag.Lookup("default"); ok && out[f.Tag.Get("yaml")] == nil {
			out[f.Tag.Get("yaml")], _ = scalarFromText(text, f.Type)
		}
	}
	return out
}

func (r *reader) scalar(n *yaml.Node, t reflect.Type, key string) any {
	if n.Kind != yaml.ScalarNode {
		r.problem(n, "%q must be one value", key)
		return nil
	}
	v, err := scalarFromText(n.Value, t)
	if err != nil {
		r.problem(n, "%s: %v", key, err)
		return nil
	}
	return v
}

// suggest ends a complaint about an unknown key: the nearest name beside it, else
// the place where a key of that name does belong.
func (r *reader) suggest(t reflect.Type, name string) string {
	if near := nearest(name, fieldNames(t)); near != "" {
		return fmt.Sprintf(": did you mean %q?", near)
	}
	for _, l := range leaves(r.top, "") {
		if strings.HasSuffix(l.name, "."+name) {
			return fmt.Sprintf(": did you mean %q?", l.name)
		}
	}
	return ""
}

func fieldNames(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		names = append(names, t.Field(i).Tag.Get("yaml"))
	}
	return names
}

func fieldByKey(t reflect.Type, name string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		if f := t.Field(i); f.Tag.Get("yaml") == name {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// scalarFromText checks text against t and returns it in plain form.
func scalarFromText(text string, t reflect.Type) (any, error) {
	if isText(t) {
		if err := reflect.New(t).Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
			return nil, err
		}
		return text, nil
	}
	v := reflect.New(t)
	var want string
	switch t.Kind() {
	case reflect.String:
		return text, nil
	case reflect.Bool:
		want = "true or false"
	case reflect.Int, reflect.Int64:
		want = "a whole number"
	default:
		return nil, fmt.Errorf("no value of type %s is understood", t)
	}
	if err := yaml.Unmarshal([]byte(text), v.Interface()); err != nil {
		return nil, fmt.Errorf("%q is not %s", text, want)
	}
	return v.Elem().Interface(), nil
}

// fromText reads the value of a key from a flag or a variable: a scalar as it is, a
// list as YAML ("[a, b]") or, of plain words, separated by commas.
func fromText(text string, t reflect.Type) (any, error) {
	if isText(t) || t.Kind() != reflect.Slice {
		return scalarFromText(text, t)
	}
	if t.Elem().Kind() == reflect.String && !strings.HasPrefix(strings.TrimSpace(text), "[") {
		list := []any{}
		for word := range strings.SplitSeq(text, ",") {
			if word = strings.TrimSpace(word); word != "" {
				list = append(list, word)
			}
		}
		return list, nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc.Content) == 0 {
		return nil, fmt.Errorf("%q is not a YAML list", text)
	}
	r := &reader{path: "value", top: t, lines: map[string]int{}}
	v := r.value(doc.Content[0], t, "")
	if len(r.problems) > 0 {
		return nil, fmt.Errorf("%s", r.problems[0])
	}
	return v, nil
}

// decodeText is the decoder's hook: text becomes whatever reads itself from text.
func decodeText(from, to reflect.Type, data any) (any, error) {
	text, ok := data.(string)
	if !ok || !isText(to) {
		return data, nil
	}
	v := reflect.New(to)
	if err := v.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
		return nil, err
	}
	return v.Elem().Interface(), nil
}

// nearest is the word closest to s, or "" when none is near enough to be meant.
func nearest(s string, words []string) string {
	best, bestDistance := "", 3
	for _, w := range words {
		if d := distance(s, w); d < bestDistance && d < len(w) {
			best, bestDistance = w, d
		}
	}
	return best
}

// distance is the Levenshtein distance of a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
