package setupcmd

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"shoal/agent"
	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/manifest/link"
)

// additions are what joining adds to agent.yaml. What is there stays as it is, with
// its comments.
type additions struct {
	FleetKeyFile string
	Publisher    string
	Mirrors      []string
	Peers        []string
	Trackers     []string
	App          *agent.AppConfig
}

// hints adds those of the link that the configuration does not have.
func (a *additions) hints(cfg agent.Config, l *link.Link) {
	if len(cfg.Peers) == 0 {
		a.Peers = l.Peers
	}
	if len(cfg.Trackers) == 0 {
		a.Trackers = l.Trackers
	}
}

func (a *additions) empty() bool {
	return a.Publisher+a.FleetKeyFile == "" && len(a.Mirrors)+len(a.Peers)+len(a.Trackers) == 0 && a.App == nil
}

const configHead = "# Written by shoal agent join. All keys: shoal config example agent\n"

// write adds to the file at path, making it if it is not there. It reports whether
// there was anything to add.
func (a *additions) write(path string) (bool, error) {
	if a.empty() {
		return false, nil
	}
	bad := func(err error) error {
		return fault.New(fault.Config, "adding to the configuration: %w", err).
			Line("The machine has joined; only the entry in %s is missing.", path).
			Do("make the file writable and join again, or add the entry by hand: shoal config example agent")
	}
	perm := fs.FileMode(0o644)
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		old = []byte(configHead)
	case err != nil:
		return false, bad(err)
	default:
		if fi, err := os.Stat(path); err == nil {
			perm = fi.Mode().Perm()
		}
	}
	doc, err := a.merged(old)
	if err != nil {
		return false, bad(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, bad(err)
	}
	if err := durable.WriteFile(path, doc, perm); err != nil {
		return false, bad(err)
	}
	return true, nil
}

// merged is the document old with the additions.
func (a *additions) merged(old []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(old, &doc); err != nil {
		return nil, err
	}
	var head []byte
	if doc.Kind == 0 { // empty, or comments alone, which the parser does not keep
		head = old
		doc = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode}}}
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, errors.New("the file is not a list of keys")
	}
	if a.FleetKeyFile != "" {
		*member(top, "fleet_key_file", yaml.ScalarNode) = *text(a.FleetKeyFile)
	}
	if a.Publisher != "" || len(a.Mirrors) > 0 {
		sources := member(top, "sources", yaml.MappingNode)
		if a.Publisher != "" {
			*member(sources, "publisher", yaml.ScalarNode) = *text(a.Publisher)
		}
		extend(sources, "mirrors", a.Mirrors)
	}
	extend(top, "peers", a.Peers)
	extend(top, "trackers", a.Trackers)
	if a.App != nil {
		apps := member(top, "apps", yaml.SequenceNode)
		apps.Style = 0 // "apps: []" is how an empty list is written
		apps.Content = append(apps.Content, entry(a.App))
	}
	var b bytes.Buffer
	b.Write(head)
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}

func entry(app *agent.AppConfig) *yaml.Node {
	e := &yaml.Node{Kind: yaml.MappingNode}
	set := func(key, value string) {
		if value != "" {
			*member(e, key, yaml.ScalarNode) = *text(value)
		}
	}
	set("name", app.Name)
	set("channel", app.Channel)
	set("target", app.Target)
	set("kind", app.Kind)
	set("variant", app.Variant)
	if app.Service.Systemd != "" {
		service := member(e, "service", yaml.MappingNode)
		*member(service, "systemd", yaml.ScalarNode) = *text(app.Service.Systemd)
	}
	return e
}

func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

func extend(in *yaml.Node, key string, values []string) {
	if len(values) == 0 {
		return
	}
	list := member(in, key, yaml.SequenceNode)
	list.Style = 0
	for _, v := range values {
		list.Content = append(list.Content, text(v))
	}
}

// member is the value of key in a mapping, made with the wanted kind if it is missing
// or null.
func member(in *yaml.Node, key string, kind yaml.Kind) *yaml.Node {
	for i := 0; i+1 < len(in.Content); i += 2 {
		if in.Content[i].Value == key {
			if v := in.Content[i+1]; v.Kind != kind {
				*v = yaml.Node{Kind: kind}
			}
			return in.Content[i+1]
		}
	}
	v := &yaml.Node{Kind: kind}
	in.Content = append(in.Content, text(key), v)
	return v
}
