package pack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"shoal/internal/contextio"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/manifest/bundle"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
	"shoal/swarm"
)

// Report is what is in a bundle.
type Report struct {
	File     string           `json:"file"`
	Bytes    int64            `json:"bytes"`
	Fleet    manifest.FleetID `json:"fleet"`
	Name     string           `json:"name"`   // of the fleet, for display
	Pinned   bool             `json:"pinned"` // the fleet id was known; else it is the bundle's own word
	Root     int64            `json:"root"`   // the newest version in it
	Verified bool             `json:"verified"`
	Channels []Channel        `json:"channels"`
}

// Channel is what a bundle offers in one channel.
type Channel struct {
	Channel   manifest.Channel `json:"channel"`
	Version   string           `json:"version"`
	Epoch     int64            `json:"epoch"`
	Sequence  int64            `json:"sequence"`
	Expires   time.Time        `json:"expires"`
	SignedBy  []string         `json:"signed_by"` // names of the keys, or their ids
	Beacon    bool             `json:"beacon"`    // one is in the bundle
	Artifacts []Artifact       `json:"artifacts"`
}

// Artifact is one of a release's artifacts.
type Artifact struct {
	Platform string          `json:"platform"`
	Length   int64           `json:"length"`
	SHA256   manifest.Digest `json:"sha256"`
	Here     bool            `json:"here"` // a payload for it is in the bundle
}

// Options say how closely to look.
type Options struct {
	// Pin is the fleet id; nil takes the bundle's word for whose it is.
	Pin *manifest.Digest
	// Contents has every payload hashed, and expiry held against Now. Without it the
	// documents alone are verified.
	Contents bool
	Now      time.Time
}

// Examine looks into the bundle at path. What is wrong with it is the error.
func Examine(ctx context.Context, path string, o Options) (*Report, error) {
	// A pipe would block the open.
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		return nil, fault.New(fault.Usage, "%q is not a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, reading(path, err)
	}
	defer f.Close()
	r, err := examine(ctx, f, o)
	if err != nil {
		return nil, reading(path, err)
	}
	r.File = path
	return r, nil
}

func reading(path string, err error) error {
	err = failure("reading "+path, err)
	var e *fault.Error
	if errors.As(err, &e) {
		e.Fact("bundle", path)
	}
	return err
}

func examine(ctx context.Context, f *os.File, o Options) (*Report, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b, err := bundle.Open(f, fi.Size())
	if err != nil {
		return nil, err
	}
	s, err := repo.ReadTree(b.Document, o.Pin, "the bundle")
	if err != nil {
		return nil, err
	}
	root := s.Trust.Root()
	r := &Report{
		Bytes: fi.Size(), Fleet: manifest.FleetID(s.Trust.Repo()), Name: root.Fleet,
		Pinned: o.Pin != nil, Root: root.Version, Verified: o.Contents, Channels: []Channel{},
	}
	if o.Contents && !o.Now.Before(root.Expires) {
		return nil, outOfDate(fault.RootExpired, "the fleet's root", root.Expires).Do("publisher: shoal trust draft, and make the bundle again")
	}
	look := looking{ctx: ctx, b: b, o: o, named: map[string]bool{}}
	for _, name := range b.Channels() {
		ch, err := s.Channel(name)
		if err != nil {
			return nil, err
		}
		c, err := look.channel(s, ch)
		if err != nil {
			return nil, err
		}
		r.Channels = append(r.Channels, *c)
	}
	return r, look.extras()
}

// looking is a look into one bundle.
type looking struct {
	ctx   context.Context
	b     *bundle.Bundle
	o     Options
	named map[string]bool // by a manifest
}

func (l *looking) channel(s *repo.State, ch *repo.Channel) (*Channel, error) {
	if ch.Err != nil {
		return nil, ch.Err
	}
	if ch.Held == nil {
		return nil, fault.New(fault.Threshold, "what the bundle offers in %s is not signed by the keys of its newest root", ch.Name).
			Line("No machine would take it.").Do("publisher: shoal channel refresh %s, and make the bundle again", ch.Name)
	}
	m := ch.Held.Manifest
	c := &Channel{
		Channel: ch.Name, Version: m.Release.Version, Epoch: m.Epoch, Sequence: m.Sequence, Expires: m.Expires,
		SignedBy: names(s.Trust.Root(), ch.Held.SignedBy), Artifacts: []Artifact{},
	}
	if l.o.Contents && !l.o.Now.Before(m.Expires) {
		return nil, outOfDate(fault.Expired, fmt.Sprintf("%s %s", ch.Name, m.Release.Version), m.Expires).
			Do("publisher: shoal channel refresh %s, and make the bundle again", ch.Name)
	}
	if env, err := l.b.Document(tree.Beacon(ch.Name), manifest.MaxBeacon); err == nil {
		c.Beacon = true
		if _, err := manifest.ParseEnvelope(env, manifest.TypeBeacon); err != nil {
			return nil, err
		}
	}
	for _, a := range m.Attachments {
		l.named[tree.Data(a.SHA256)] = true
	}
	for i := range m.Artifacts {
		a := &m.Artifacts[i]
		one := Artifact{Platform: a.Platform().String(), Length: a.Length, SHA256: a.SHA256}
		for _, p := range a.Payloads {
			here, err := l.payload(&p)
			if err != nil {
				return nil, err
			}
			one.Here = one.Here || here
		}
		c.Artifacts = append(c.Artifacts, one)
	}
	return c, nil
}

// payload checks a payload, and its info dict, if they are in the bundle.
func (l *looking) payload(p *manifest.Payload) (here bool, err error) {
	info, data := tree.Info(p.InfoSHA256), tree.Data(p.SHA256)
	if l.named[data] {
		_, err := l.b.File(data)
		return err == nil, nil // two artifacts are the same file
	}
	l.named[info], l.named[data] = true, true
	if dict, err := l.b.Document(info, swarm.MaxInfoSize); err == nil {
		if _, err := swarm.OpenInfo(dict, swarm.Ref{Infohash: p.Infohash, InfoSHA256: p.InfoSHA256, Length: p.Length}); err != nil {
			return false, fault.New(fault.BadInfo, "an info dict in the bundle is not as signed: %w", err).Fact("file", info)
		}
	}
	f, err := l.b.File(data)
	if err != nil {
		return false, nil
	}
	bad := func(code fault.Code, found string) error {
		return fault.New(code, "a payload in the bundle is not the signed one").
			Line("%s: signed are %d bytes; found are %s.", data, p.Length, found).
			Line("No machine would install it.").
			Do("copy the bundle from where it was made once more").Fact("file", data)
	}
	if f.Size() > p.Length {
		return false, bad(fault.LengthExceeded, fmt.Sprint(f.Size()))
	}
	if f.Size() < p.Length {
		return false, bad(fault.ContentMismatch, fmt.Sprint(f.Size()))
	}
	if !l.o.Contents {
		return true, nil
	}
	h := sha256.New()
	if _, err := io.Copy(contextio.Writer(l.ctx, h), f); err != nil {
		return false, err
	}
	if got := manifest.Digest(h.Sum(nil)); got != p.SHA256 {
		return false, bad(fault.ContentMismatch, "as many, with sha256 "+got.String())
	}
	return true, nil
}

// extras refuses files that no release in the bundle names: nobody vouches for them.
func (l *looking) extras() error {
	for _, name := range l.b.Names() {
		dir, _, _ := strings.Cut(name, "/")
		if (dir == "info" || dir == "data") && !l.named[name] {
			return fault.New(fault.Malformed, "the bundle has a file that no release in it names").
				Line("%s; machines leave it alone.", name).Do("make the bundle again: shoal bundle create").Fact("file", name)
		}
	}
	return nil
}

func outOfDate(code fault.Code, what string, since time.Time) *fault.Error {
	return fault.New(code, "%s ran out of date at %s", what, since.UTC().Format("2006-01-02 15:04 UTC")).
		Line("No machine would take this bundle; what is installed keeps running.")
}

// names are what people called the keys.
func names(r *manifest.Root, ids []keys.ID) []string {
	all := []string{}
	for _, id := range ids {
		name := string(id)
		if k, err := keys.ParsePublicKey(r.Keys[id]); err == nil && k.Comment() != "" {
			name = k.Comment()
		}
		all = append(all, name)
	}
	return all
}
