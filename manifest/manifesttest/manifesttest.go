// Package manifesttest makes a small fleet for tests: roots, manifests and beacons that
// are right, and that a test makes wrong in one line.
//
//	f := manifesttest.New(t)
//	env := f.Manifest(manifesttest.Stable, 42, manifesttest.Set("artifacts.0.mode", "4755"))
//
// Keys belong to names, as in package keystest, so documents are the same in every run.
package manifesttest

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"shoal/keys"
	"shoal/keys/keystest"
	"shoal/manifest"
)

// The channels of the fleet. Stable needs two of release-1, release-2 and release-3 and
// has the beacon key beacon-1; Nightly needs ci-1 and has no beacon. Root needs two of
// root-1, root-2 and root-3.
var (
	Stable  = manifest.Channel{App: "acme", Name: "stable"}
	Nightly = manifest.Channel{App: "acme", Name: "nightly"}
)

// Platform is what the artifacts of the fleet are built for.
var Platform = manifest.Platform{OS: "linux", Arch: "amd64"}

// Start is when the first root was issued. A Fleet's clock begins a day later.
var Start = time.Date(2026, 10, 11, 16, 0, 0, 0, time.UTC)

// Fleet is a fleet whose keys are all in the test's hands.
type Fleet struct {
	// Now is what Options.Clock returns.
	Now time.Time
	// Roots are the envelopes that have been published.
	Roots [][]byte
	// Root is the last of them.
	Root *manifest.Root

	t       testing.TB
	named   map[string]keys.Signer
	signers map[keys.ID]keys.Signer
}

// New returns a fleet with a first root.
func New(t testing.TB) *Fleet {
	t.Helper()
	f := &Fleet{t: t, Now: Start.Add(24 * time.Hour), named: map[string]keys.Signer{}, signers: map[keys.ID]keys.Signer{}}
	r := &manifest.Root{
		Version: 1, Fleet: "acme", Issued: Start, Expires: Start.AddDate(2, 0, 0),
		Keys: map[keys.ID]string{},
	}
	r.Root = f.Role(r, 2, "root-1", "root-2", "root-3")
	beacon := f.Role(r, 1, "beacon-1")
	r.Channels = []manifest.ChannelSpec{
		{App: "acme", Channel: "stable", Epoch: 1, Release: f.Role(r, 2, "release-1", "release-2", "release-3"),
			Beacon: &beacon, MaxValidity: 90 * 24 * time.Hour, StaleAfter: 48 * time.Hour},
		{App: "acme", Channel: "nightly", Epoch: 1, Release: f.Role(r, 1, "ci-1"), MaxValidity: 7 * 24 * time.Hour},
	}
	payload, err := manifest.DraftRoot(r)
	if err != nil {
		t.Fatal(err)
	}
	f.Publish(f.Sign(manifest.TypeRoot, payload, "root-1", "root-2"))
	return f
}

// Key returns the signer that belongs to a name; one that begins with "sk-" is a FIDO2
// token.
func (f *Fleet) Key(name string) keys.Signer {
	f.t.Helper()
	s := f.named[name]
	switch {
	case s != nil:
		return s
	case strings.HasPrefix(name, "sk-"):
		s = keystest.NewSK(f.t, name)
	default:
		s = keystest.New(f.t, name)
	}
	f.named[name] = s
	f.signers[s.Public().ID()] = s
	return s
}

// Role makes a role of the keys that belong to names and files the keys in r.
func (f *Fleet) Role(r *manifest.Root, threshold int, names ...string) manifest.RoleSpec {
	f.t.Helper()
	role := manifest.RoleSpec{Threshold: threshold}
	for _, name := range names {
		pub := f.Key(name).Public()
		r.Keys[pub.ID()] = pub.String()
		role.KeyIDs = append(role.KeyIDs, pub.ID())
	}
	return role
}

// Pin returns the fleet id.
func (f *Fleet) Pin() manifest.Digest { return f.payloadHash(f.Roots[0], manifest.TypeRoot) }

// Options returns options with the fleet's clock.
func (f *Fleet) Options() manifest.Options {
	return manifest.Options{Clock: func() time.Time { return f.Now }, AgentVersion: "1.0.0"}
}

// Trust returns a Trust that has taken every root.
func (f *Fleet) Trust() *manifest.Trust {
	f.t.Helper()
	t, _, err := manifest.Pin(f.Roots[0], f.Pin(), f.Options())
	if err != nil {
		f.t.Fatal(err)
	}
	for _, env := range f.Roots[1:] {
		if _, err := t.UpdateRoot(env); err != nil {
			f.t.Fatal(err)
		}
	}
	return t
}

// Publish appends a root envelope to Roots, good or bad. One that is good becomes Root.
func (f *Fleet) Publish(env []byte) {
	f.t.Helper()
	f.Roots = append(f.Roots, env)
	if e, err := manifest.ParseEnvelope(env, manifest.TypeRoot); err == nil {
		if r, err := manifest.ReadRootDraft(e.Payload); err == nil {
			f.Root = r
		}
	}
}

// Sign returns payload in an envelope, signed by the keys that belong to names.
func (f *Fleet) Sign(typ manifest.Type, payload []byte, names ...string) []byte {
	f.t.Helper()
	e := manifest.NewEnvelope(typ, payload)
	for _, name := range names {
		if err := e.Attach(entry(f.t, f.Key(name), string(typ), payload)); err != nil {
			f.t.Fatal(err)
		}
	}
	return e.Marshal()
}

func entry(t testing.TB, s keys.Signer, namespace string, payload []byte) keys.Entry {
	t.Helper()
	sig, err := s.Sign(context.Background(), namespace, payload)
	if err != nil {
		t.Fatal(err)
	}
	return keys.Entry{KeyID: s.Public().ID(), Sig: sig}
}

// Rotate publishes the root after the last one and returns it.
func (f *Fleet) Rotate(edits ...Edit) []byte {
	f.t.Helper()
	env := f.NextRoot(edits...)
	f.Publish(env)
	return env
}

// NextRoot returns the root that follows the last one, signed by the keys of both, and
// publishes nothing.
func (f *Fleet) NextRoot(edits ...Edit) []byte {
	f.t.Helper()
	e, err := manifest.ParseEnvelope(f.Roots[len(f.Roots)-1], manifest.TypeRoot)
	if err != nil {
		f.t.Fatal(err)
	}
	r, err := manifest.ReadRootDraft(e.Payload)
	if err != nil {
		f.t.Fatal(err)
	}
	prev := e.PayloadHash()
	r.Version, r.ID, r.Prev = r.Version+1, new(f.Pin()), &prev
	old := r.Root
	d := &doc{fleet: f, root: r}
	for _, edit := range edits {
		edit(d)
	}
	payload, err := manifest.DraftRoot(r)
	if err != nil {
		f.t.Fatal(err)
	}
	return d.seal(manifest.TypeRoot, payload, append(first(old), first(r.Root)...))
}

// Manifest returns a manifest of a channel in its current epoch: version 1.0.SEQUENCE,
// one linux/amd64 artifact of 1 MiB whose digest is that of the version, issued an hour
// before Now, valid for as long as root allows.
func (f *Fleet) Manifest(ch manifest.Channel, sequence int64, edits ...Edit) []byte {
	f.t.Helper()
	spec, ok := f.Root.Channel(ch)
	if !ok {
		f.t.Fatalf("the fleet has no channel %s", ch)
	}
	version := "1.0." + strconv.FormatInt(sequence, 10)
	issued := f.Now.Add(-time.Hour)
	m := &manifest.Manifest{
		Repo: f.Pin(), App: ch.App, Channel: ch.Name, Epoch: spec.Epoch, Sequence: sequence,
		Issued: issued, Expires: issued.Add(spec.MaxValidity),
		Release:   manifest.Release{Version: version},
		Artifacts: []manifest.Artifact{Artifact(ch.App, Platform, 1<<20, Content(version))},
	}
	d := &doc{fleet: f, manifest: m}
	for _, edit := range edits {
		edit(d)
	}
	payload, err := manifest.Draft(m, m.Issued)
	if err != nil {
		f.t.Fatal(err)
	}
	return d.seal(manifest.TypeManifest, payload, first(spec.Release))
}

// Beacon returns a beacon of a channel for the manifest in env, fresh for half of what root
// allows and opening no gated wave.
func (f *Fleet) Beacon(env []byte, edits ...Edit) []byte {
	f.t.Helper()
	e, err := manifest.ParseEnvelope(env, manifest.TypeManifest)
	if err != nil {
		f.t.Fatal(err)
	}
	m, err := manifest.ReadManifestDraft(e.Payload)
	if err != nil {
		f.t.Fatal(err)
	}
	spec, ok := f.Root.Channel(m.Name())
	if !ok || spec.Beacon == nil {
		f.t.Fatalf("the fleet has no beacon for %s", m.Name())
	}
	b := &manifest.Beacon{
		Repo: m.Repo, App: m.App, Channel: m.Channel, Epoch: m.Epoch, Sequence: m.Sequence,
		Manifest: e.PayloadHash(), Issued: f.Now, Expires: f.Now.Add(spec.StaleAfter / 2),
	}
	d := &doc{fleet: f, beacon: b}
	for _, edit := range edits {
		edit(d)
	}
	payload, err := manifest.DraftBeacon(b)
	if err != nil {
		f.t.Fatal(err)
	}
	return d.seal(manifest.TypeBeacon, payload, first(*spec.Beacon))
}

func first(s manifest.RoleSpec) []keys.ID { return append([]keys.ID(nil), s.KeyIDs[:s.Threshold]...) }

func (f *Fleet) payloadHash(env []byte, typ manifest.Type) manifest.Digest {
	f.t.Helper()
	e, err := manifest.ParseEnvelope(env, typ)
	if err != nil {
		f.t.Fatal(err)
	}
	return e.PayloadHash()
}

// Content returns the digest an artifact of that version has in this fleet.
func Content(version string) manifest.Digest { return manifest.Sum([]byte("content of " + version)) }

// Artifact returns an artifact with one payload, the file itself. The infohash and the
// info dict's digest are made up from the content's.
func Artifact(name string, p manifest.Platform, length int64, sha256 manifest.Digest) manifest.Artifact {
	return manifest.Artifact{
		Name: name, Kind: manifest.KindBinary, OS: p.OS, Arch: p.Arch, Variant: p.Variant,
		Length: length, SHA256: sha256, Mode: "0755",
		Payloads: []manifest.Payload{{
			Kind: manifest.PayloadFull, Codec: manifest.CodecNone, Length: length, SHA256: sha256,
			Infohash: manifest.Infohash(sha256[:20]), InfoSHA256: manifest.Sum(sha256[:]),
		}},
	}
}

// doc is a document in the making.
type doc struct {
	fleet    *Fleet
	root     *manifest.Root
	manifest *manifest.Manifest
	beacon   *manifest.Beacon

	raw      []func(map[string]any)
	text     []func([]byte) []byte
	envelope []func(*manifest.Envelope)
	signers  *[]string
}

// Edit changes a document before it is signed, or its envelope after.
type Edit func(*doc)

// WithManifest changes a manifest's fields; what comes out must be fit to be drafted.
func WithManifest(change func(*manifest.Manifest)) Edit {
	return func(d *doc) { change(d.manifest) }
}

// WithRoot changes a root's fields; what comes out must be fit to be drafted.
func WithRoot(change func(*manifest.Root)) Edit { return func(d *doc) { change(d.root) } }

// WithBeacon changes a beacon's fields; what comes out must be fit to be drafted.
func WithBeacon(change func(*manifest.Beacon)) Edit { return func(d *doc) { change(d.beacon) } }

// Set gives a member any value, wrong ones too. The path is dotted, with numbers for the
// entries of arrays: "artifacts.0.mode".
func Set(path string, value any) Edit {
	return func(d *doc) {
		d.raw = append(d.raw, func(m map[string]any) {
			in, last := walk(d.fleet.t, m, path)
			switch in := in.(type) {
			case map[string]any:
				in[last] = value
			case []any:
				in[index(d.fleet.t, path, last, len(in))] = value
			}
		})
	}
}

// Drop takes a member of an object out.
func Drop(path string) Edit {
	return func(d *doc) {
		d.raw = append(d.raw, func(m map[string]any) {
			in, last := walk(d.fleet.t, m, path)
			if object, ok := in.(map[string]any); ok {
				delete(object, last)
			}
		})
	}
}

func walk(t testing.TB, v any, path string) (in any, last string) {
	t.Helper()
	part := strings.Split(path, ".")
	for _, p := range part[:len(part)-1] {
		switch at := v.(type) {
		case map[string]any:
			v = at[p]
		case []any:
			v = at[index(t, path, p, len(at))]
		default:
			t.Fatalf("the document has no %q", path)
		}
	}
	return v, part[len(part)-1]
}

func index(t testing.TB, path, s string, n int) int {
	t.Helper()
	i, err := strconv.Atoi(s)
	if err != nil || i < 0 || i >= n {
		t.Fatalf("%q: no entry %q", path, s)
	}
	return i
}

// Raw changes the payload as the JSON object it is.
func Raw(change func(map[string]any)) Edit {
	return func(d *doc) { d.raw = append(d.raw, change) }
}

// Text changes the payload as text, for what no JSON value can say: duplicates, bad
// UTF-8, more after the end.
func Text(change func([]byte) []byte) Edit {
	return func(d *doc) { d.text = append(d.text, change) }
}

// Replace changes the first occurrence of a text in the payload, which must be there.
func Replace(old, with string) Edit {
	return func(d *doc) {
		d.text = append(d.text, func(b []byte) []byte {
			if !bytes.Contains(b, []byte(old)) {
				d.fleet.t.Fatalf("the payload has no %q", old)
			}
			return bytes.Replace(b, []byte(old), []byte(with), 1)
		})
	}
}

// SignedBy names the keys that sign, instead of as many as the threshold wants.
func SignedBy(names ...string) Edit { return func(d *doc) { d.signers = &names } }

// Envelope changes the envelope after the document is signed.
func Envelope(change func(*manifest.Envelope)) Edit {
	return func(d *doc) { d.envelope = append(d.envelope, change) }
}

// seal makes the raw edits, signs and wraps.
func (d *doc) seal(typ manifest.Type, payload []byte, ids []keys.ID) []byte {
	t := d.fleet.t
	t.Helper()
	if len(d.raw) > 0 {
		payload = edit(t, payload, d.raw...)
	}
	for _, change := range d.text {
		payload = change(payload)
	}
	var signers []keys.Signer
	if d.signers != nil {
		for _, name := range *d.signers {
			signers = append(signers, d.fleet.Key(name))
		}
	} else {
		for _, id := range ids {
			signers = append(signers, d.fleet.signers[id])
		}
	}
	e := manifest.NewEnvelope(typ, payload)
	for _, s := range signers {
		if err := e.Attach(entry(t, s, string(typ), payload)); err != nil {
			t.Fatal(err)
		}
	}
	for _, change := range d.envelope {
		change(e)
	}
	return e.Marshal()
}

// EditPayload returns the payload of an envelope, changed as the JSON object it is and
// signed by nobody.
func EditPayload(t testing.TB, env []byte, typ manifest.Type, change func(map[string]any)) []byte {
	t.Helper()
	e, err := manifest.ParseEnvelope(env, typ)
	if err != nil {
		t.Fatal(err)
	}
	return edit(t, e.Payload, change)
}

func edit(t testing.TB, payload []byte, changes ...func(map[string]any)) []byte {
	t.Helper()
	var m map[string]any
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.UseNumber()
	if err := dec.Decode(&m); err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		change(m)
	}
	out, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return out
}
