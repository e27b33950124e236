package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"
)

// A CycloneDX 1.5 document, as far as a Go program needs one.
type (
	bom struct {
		Format     string      `json:"bomFormat"`
		Spec       string      `json:"specVersion"`
		Version    int         `json:"version"`
		Metadata   metadata    `json:"metadata"`
		Components []component `json:"components"`
	}
	metadata struct {
		Timestamp string    `json:"timestamp"`
		Component component `json:"component"`
	}
	component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version,omitempty"`
		Purl       string     `json:"purl,omitempty"`
		Hashes     []hash     `json:"hashes,omitempty"`
		Properties []property `json:"properties,omitempty"`
	}
	hash struct {
		Alg     string `json:"alg"`
		Content string `json:"content"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
)

// sbom lists what is linked into a program: the modules the linker says are in it.
func (r *release) sbom(b build) error {
	program, err := os.ReadFile(b.path)
	if err != nil {
		return err
	}
	doc := bom{Format: "CycloneDX", Spec: "1.5", Version: 1, Metadata: metadata{
		Timestamp: r.time.Format(time.RFC3339),
		Component: component{
			Type: "application", Ref: "shoal", Name: "shoal", Version: r.version,
			Hashes:     []hash{{"SHA-256", fmt.Sprintf("%x", sha256.Sum256(program))}},
			Properties: []property{{"shoal:platform", b.os + "/" + b.arch}},
		},
	}}
	if r.commit != "" {
		doc.Metadata.Component.Properties = append(doc.Metadata.Component.Properties, property{"shoal:commit", r.commit})
	}
	doc.Components = append(doc.Components, goModule(&debug.Module{Path: "stdlib", Version: b.info.GoVersion}))
	for _, m := range b.info.Deps {
		doc.Components = append(doc.Components, goModule(m))
	}
	return r.create(r.name(b, ".cdx.json"), func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(doc)
	})
}

// goModule describes a module. One that a folder of this tree stands in for is no release of
// anybody's, and has no address.
func goModule(m *debug.Module) component {
	c := component{Type: "library", Name: m.Path, Version: m.Version}
	switch {
	case m.Replace != nil && (strings.HasPrefix(m.Replace.Path, ".") || filepath.IsAbs(m.Replace.Path)):
		c.Ref, c.Version = m.Path, ""
		c.Properties = []property{{"shoal:replaced-by", m.Replace.Path}}
		return c
	case m.Replace != nil:
		c.Properties = []property{{"shoal:replaces", m.Path + "@" + m.Version}}
		m = m.Replace
		c.Name, c.Version = m.Path, m.Version
	}
	c.Purl = "pkg:golang/" + m.Path + "@" + m.Version
	c.Ref = c.Purl
	if m.Sum != "" {
		c.Properties = append(c.Properties, property{"go:sum", m.Sum})
	}
	return c
}
