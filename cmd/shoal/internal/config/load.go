// Package config reads Shoal's configuration files, each into one struct, so that
// whatever a person wrote is either understood or refused with the line it is on.
//
// A value comes from a flag, else from the environment (SHOAL_ and the key in upper
// case with underscores), else from a file, else from the defaults. Lists are taken
// whole: a later file's list replaces an earlier one's.
//
// [Agent.Config] and [Publisher.Config] are what a file asks of its room.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"

	"shoal/internal/fault"
)

const (
	maxFile  = 1 << 20 // a configuration is a page; 1 MiB is generous
	maxFiles = 256     // files in one conf.d

	minute = time.Minute
)

// Bound says that a flag, when given, sets a key.
type Bound struct {
	Key  string
	Flag *pflag.Flag
}

// Options say where values come from besides the defaults.
type Options struct {
	Files   []string            // read in this order, the last wins; a missing one is skipped
	Require bool                // a missing file is an error
	Getenv  func(string) string // nil means no environment
	Flags   []Bound
}

// Origin says where a value came from.
type Origin struct {
	Kind  string // "flag", "env", "file" or "default"
	Where string // the flag, the variable or FILE:LINE; empty for a default
}

// File is the file the value came from; empty for anything else.
func (o Origin) File() string {
	if o.Kind != "file" {
		return ""
	}
	return o.Where[:strings.LastIndexByte(o.Where, ':')]
}

func (o Origin) String() string { return strings.TrimSpace(o.Kind + " " + o.Where) }

// Loaded tells how a configuration came about.
type Loaded struct {
	Files   []string          // the files that were there, in the order they were read
	Origins map[string]Origin // by key, for every key there is
}

// Load fills out, which holds the defaults and is a pointer to a struct of this
// package, from the sources in o. Errors have code config and name file and line.
func Load(out any, o Options) (*Loaded, error) {
	t := reflect.TypeOf(out).Elem()
	v := viper.New()
	loaded := &Loaded{Origins: map[string]Origin{}}
	keys := leaves(t, "")
	def := reflect.ValueOf(out).Elem()
	for _, k := range keys {
		// viper does not see an environment variable whose key has no default.
		v.SetDefault(k.name, plain(def.FieldByIndex(k.index)))
		loaded.Origins[k.name] = Origin{Kind: "default"}
	}
	for _, path := range o.Files {
		values, lines, err := readFile(path, t)
		if errors.Is(err, fs.ErrNotExist) && !o.Require {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := v.MergeConfigMap(values); err != nil {
			return nil, fault.New(fault.Config, "%s: %w", path, err)
		}
		for key, line := range lines {
			if _, ok := loaded.Origins[key]; !ok {
				continue // a group of keys, or a key within a list
			}
			loaded.Origins[key] = Origin{Kind: "file", Where: fmt.Sprintf("%s:%d", path, line)}
		}
		loaded.Files = append(loaded.Files, path)
	}
	for _, k := range keys {
		if err := override(v, k, o, loaded); err != nil {
			return nil, err
		}
	}
	fresh := reflect.New(t)
	if err := v.UnmarshalExact(fresh.Interface(), viper.DecodeHook(decodeText)); err != nil {
		return nil, fault.New(fault.Config, "reading the configuration: %w", err)
	}
	def.Set(fresh.Elem())
	return loaded, nil
}

// override binds what stands above the files for one key, after checking it: the
// decoder's own complaints would not say which variable or flag is wrong.
func override(v *viper.Viper, k leaf, o Options, loaded *Loaded) error {
	for _, b := range o.Flags {
		if b.Key == k.name && b.Flag.Changed {
			loaded.Origins[k.name] = Origin{Kind: "flag", Where: "--" + b.Flag.Name}
			return v.BindPFlag(k.name, b.Flag)
		}
	}
	if o.Getenv == nil {
		return nil
	}
	name := EnvName(k.name)
	text := o.Getenv(name)
	if text == "" {
		return nil
	}
	value, err := fromText(text, k.typ)
	if err != nil {
		return fault.New(fault.Config, "%s: %w", name, err)
	}
	v.Set(k.name, value)
	loaded.Origins[k.name] = Origin{Kind: "env", Where: name}
	return nil
}

// EnvName is the environment variable that sets key.
func EnvName(key string) string {
	return "SHOAL_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// readFile reads one file strictly: every key must be one of t's, with a value that
// its type takes. It returns the values by key, nested as viper wants them, and the
// line each key was set on.
func readFile(path string, t reflect.Type) (map[string]any, map[string]int, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fault.New(fault.Config, "reading the configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, nil, fault.New(fault.Config, "reading %s: %w", path, err)
	}
	if len(b) > maxFile {
		return nil, nil, fault.New(fault.Config, "%s is larger than %d bytes", path, maxFile)
	}
	return parse(path, b, t)
}

func parse(path string, b []byte, t reflect.Type) (map[string]any, map[string]int, error) {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return map[string]any{}, nil, nil
	} else if err != nil {
		return nil, nil, fault.New(fault.Config, "%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, nil, fault.New(fault.Config, "%s: more than one YAML document", path)
	}
	r := &reader{path: path, top: t, lines: map[string]int{}}
	values, _ := r.value(doc.Content[0], t, "").(map[string]any)
	if len(r.problems) > 0 {
		e := fault.New(fault.Config, "%s", r.problems[0])
		for _, p := range r.problems[1:] {
			e.Line("%s", p)
		}
		return nil, nil, e
	}
	return values, r.lines, nil
}

// Path is one place where a file may be.
type Path struct {
	File   string
	System bool // below /etc or its like, not in a user's own directory
}

// Paths are the places of NAME.yaml and its conf.d, in the order they are read: the
// system's, then the user's.
func Paths(name, goos string, getenv func(string) string) []Path {
	var out []Path
	add := func(dir string, system bool) {
		if dir == "" {
			return
		}
		out = append(out, Path{filepath.Join(dir, name+".yaml"), system})
		more, _ := filepath.Glob(filepath.Join(dir, "conf.d", "*.yaml"))
		sort.Strings(more)
		if len(more) > maxFiles {
			more = more[:maxFiles]
		}
		for _, f := range more {
			out = append(out, Path{f, system})
		}
	}
	add(SystemDir(goos, getenv), true)
	add(UserDir(goos, getenv), false)
	return out
}

// SystemDir is where the machine's configuration lives.
func SystemDir(goos string, getenv func(string) string) string {
	switch goos {
	case "windows":
		if base := getenv("ProgramData"); base != "" {
			return filepath.Join(base, "shoal")
		}
		return ""
	case "darwin":
		return "/Library/Application Support/shoal"
	}
	return "/etc/shoal"
}

// UserDir is where a user's own configuration lives; empty when the user has no home.
func UserDir(goos string, getenv func(string) string) string {
	if base := getenv("XDG_CONFIG_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "shoal")
	}
	if goos == "windows" {
		if base := getenv("AppData"); base != "" {
			return filepath.Join(base, "shoal")
		}
		return ""
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".config", "shoal")
	}
	return ""
}

// Keys lists the keys of a configuration struct, sorted.
func Keys(cfg any) []string {
	var names []string
	for _, k := range leaves(reflect.TypeOf(cfg), "") {
		names = append(names, k.name)
	}
	slices.Sort(names)
	return names
}
