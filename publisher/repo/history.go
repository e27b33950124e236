package repo

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"shoal/internal/fault"
	"shoal/manifest"
)

func (r *Repo) historyPath(ch manifest.Channel, o manifest.Order) string {
	return filepath.Join(r.dir, historyDir, ch.App, ch.Name, o.String()+".json")
}

// Past is a manifest that was published once.
type Past struct {
	Manifest *manifest.Manifest
	Envelope *manifest.Envelope
	Raw      []byte // the envelope as it was stored
	Path     string // of the file
}

// History returns the manifests of ch up to last, newest first. They are read for
// people and not verified: the keys that signed them may be gone. A file that cannot
// be read is left out.
func (r *Repo) History(ch manifest.Channel, last manifest.Order) ([]Past, error) {
	names, err := os.ReadDir(filepath.Join(r.dir, historyDir, ch.App, ch.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, failure("reading the history", err)
	}
	var past []Past
	for _, e := range names {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		o, err := manifest.ParseOrder(name)
		if !ok || err != nil || o.Compare(last) > 0 { // above last: a publish that did not get to its end
			continue
		}
		if p, err := r.past(ch, o); err == nil {
			past = append(past, *p)
		}
	}
	slices.SortFunc(past, func(a, b Past) int { return b.Manifest.Order().Compare(a.Manifest.Order()) })
	return past, nil
}

func (r *Repo) past(ch manifest.Channel, o manifest.Order) (*Past, error) {
	f, err := os.Open(r.historyPath(ch, o))
	if err != nil {
		return nil, failure("reading the history", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, manifest.MaxManifest+1))
	if err != nil {
		return nil, failure("reading the history", err)
	}
	env, err := manifest.ParseEnvelope(b, manifest.TypeManifest)
	if err != nil {
		return nil, err
	}
	m, err := manifest.ReadManifestDraft(env.Payload)
	if err != nil {
		return nil, err
	}
	if m.Name() != ch || m.Order() != o {
		return nil, fault.New(fault.WrongTarget, "the history has %s %s under the name of %s %s", m.Name(), m.Order(), ch, o)
	}
	return &Past{Manifest: m, Envelope: env, Raw: b, Path: f.Name()}, nil
}
