package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"

	// Nobody's uid, as images without a user table have it.
	imageUser = 65532
	imageHome = "/var/lib/shoal-publisher"
)

// The documents of the OCI image specification, version 1.0.
type (
	descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Platform    *platform         `json:"platform,omitempty"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	platform struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Variant      string `json:"variant,omitempty"`
	}
	index struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}
	imageManifest struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Config        descriptor        `json:"config"`
		Layers        []descriptor      `json:"layers"`
		Annotations   map[string]string `json:"annotations,omitempty"`
	}
	imageConfig struct {
		platform
		Created string      `json:"created"`
		Config  processes   `json:"config"`
		RootFS  imageRootFS `json:"rootfs"`
	}
	processes struct {
		User       string              `json:"User"`
		Entrypoint []string            `json:"Entrypoint"`
		Cmd        []string            `json:"Cmd"`
		WorkingDir string              `json:"WorkingDir"`
		Ports      map[string]struct{} `json:"ExposedPorts"`
		Volumes    map[string]struct{} `json:"Volumes"`
	}
	imageRootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
)

// layout is an OCI image layout as it grows.
type layout struct{ blobs []entry }

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func (l *layout) add(mediaType string, content []byte) descriptor {
	d := descriptor{MediaType: mediaType, Digest: digest(content), Size: len(content)}
	l.blobs = append(l.blobs, entry{name: "blobs/sha256/" + d.Digest[len("sha256:"):], mode: 0o644, content: content})
	return d
}

func (l *layout) addJSON(mediaType string, doc any) (descriptor, error) {
	b, err := json.Marshal(doc)
	if err != nil {
		return descriptor{}, err
	}
	return l.add(mediaType, b), nil
}

// image writes one image for all Linux platforms: a publisher or a branch office in a
// container. Nothing but the program is in it.
func (r *release) image() error {
	l := &layout{}
	all := index{SchemaVersion: 2, MediaType: mediaIndex}
	for _, b := range r.builds {
		if b.os != "linux" {
			continue
		}
		d, err := r.platformImage(l, b)
		if err != nil {
			return err
		}
		all.Manifests = append(all.Manifests, d)
	}
	if len(all.Manifests) == 0 {
		return nil
	}
	d, err := l.addJSON(mediaIndex, all)
	if err != nil {
		return err
	}
	d.Annotations = map[string]string{"org.opencontainers.image.ref.name": r.version}
	top, err := json.Marshal(index{SchemaVersion: 2, MediaType: mediaIndex, Manifests: []descriptor{d}})
	if err != nil {
		return err
	}
	files := append([]entry{
		{name: "oci-layout", mode: 0o644, content: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{name: "index.json", mode: 0o644, content: top},
		{name: "blobs/", mode: 0o755}, {name: "blobs/sha256/", mode: 0o755},
	}, l.blobs...)
	return r.create("shoal_"+r.version+"_oci.tar", func(w io.Writer) error { return writeTar(w, files, r.time) })
}

func (r *release) platformImage(l *layout, b build) (descriptor, error) {
	program, err := os.ReadFile(b.path)
	if err != nil {
		return descriptor{}, err
	}
	var plain, packed bytes.Buffer
	files := []entry{
		{name: "etc/", mode: 0o755}, {name: "etc/shoal/", mode: 0o755}, {name: "tmp/", mode: 0o1777},
		{name: "usr/", mode: 0o755}, {name: "usr/bin/", mode: 0o755}, {name: "usr/bin/shoal", mode: 0o755, content: program},
		{name: "var/", mode: 0o755}, {name: "var/lib/", mode: 0o755}, {name: imageHome[1:] + "/", mode: 0o755, owner: imageUser},
	}
	if err := writeTar(&plain, files, r.time); err != nil {
		return descriptor{}, err
	}
	if err := writeTarGz(&packed, files, r.time); err != nil {
		return descriptor{}, err
	}
	on := platform{OS: b.os, Architecture: b.arch}
	if b.arm != "" {
		on.Variant = "v" + b.arm
	}
	config, err := l.addJSON(mediaConfig, imageConfig{
		platform: on, Created: r.time.Format(time.RFC3339),
		Config: processes{
			User: fmt.Sprintf("%d:%[1]d", imageUser), Entrypoint: []string{"/usr/bin/shoal"}, Cmd: []string{"serve"}, WorkingDir: imageHome,
			Ports: map[string]struct{}{"7800/tcp": {}, "7801/tcp": {}}, Volumes: map[string]struct{}{imageHome: {}},
		},
		RootFS: imageRootFS{"layers", []string{digest(plain.Bytes())}},
	})
	if err != nil {
		return descriptor{}, err
	}
	notes := map[string]string{
		"org.opencontainers.image.title": "shoal", "org.opencontainers.image.version": r.version, "org.opencontainers.image.licenses": "Apache-2.0",
	}
	if r.commit != "" {
		notes["org.opencontainers.image.revision"] = r.commit
	}
	d, err := l.addJSON(mediaManifest, imageManifest{
		SchemaVersion: 2, MediaType: mediaManifest, Config: config, Layers: []descriptor{l.add(mediaLayer, packed.Bytes())}, Annotations: notes,
	})
	d.Platform = &on
	return d, err
}
