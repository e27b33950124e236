package ceremony_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/keys/keystest"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher"
	"shoal/publisher/ceremony"
	"shoal/publisher/repo"
)

var (
	stable  = manifest.Channel{App: "acme", Name: "stable"}
	nightly = manifest.Channel{App: "acme", Name: "nightly"}
)

// fleet is a repository whose keys are the same in every run.
type fleet struct {
	t   *testing.T
	dir string // for files
	cfg publisher.Config
	now time.Time
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir(), now: time.Date(2026, 10, 12, 10, 0, 0, 0, time.UTC)}
	f.cfg = publisher.Config{Store: filepath.Join(f.dir, "store"), App: "acme", Clock: func() time.Time { return f.now }}
	d, err := ceremony.DraftRoot(nil, ceremony.RootDraft{
		Fleet: "acme", Root: f.role(2, "root-1", "root-2", "root-3"),
		Channels: []ceremony.ChannelDraft{
			{Channel: stable, Release: f.role(2, "ann", "ben", "cai")},
			{Channel: nightly, Release: f.role(1, "ci"), MaxValidity: 7 * 24 * time.Hour},
		},
	}, f.now)
	if err != nil {
		t.Fatal(err)
	}
	env := f.sign(d.Payload, manifest.TypeRoot, "root-1", "root-2")
	if _, err := repo.Create(f.cfg.Store, env); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fleet) role(threshold int, names ...string) *keys.Role {
	r, _ := keystest.NewRole(f.t, threshold, names...)
	return &r
}

func (f *fleet) sign(payload []byte, typ manifest.Type, names ...string) []byte {
	f.t.Helper()
	env := manifest.NewEnvelope(typ, payload)
	for _, name := range names {
		for _, e := range keystest.Sign(f.t, string(typ), payload, keystest.New(f.t, name)) {
			if err := env.Attach(e); err != nil {
				f.t.Fatal(err)
			}
		}
	}
	return env.Marshal()
}

func (f *fleet) file(name, content string) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func (f *fleet) request(ch manifest.Channel, version, content string, names ...string) publisher.PublishRequest {
	return publisher.PublishRequest{
		Channel: ch, Version: version, DraftDir: f.dir,
		Files: []publisher.File{{Path: f.file("dist/"+version, content), Platform: manifest.Platform{OS: "linux", Arch: "amd64"}}},
		Keys: func(context.Context) ([]keys.Signer, error) {
			var signers []keys.Signer
			for _, name := range names {
				signers = append(signers, keystest.New(f.t, name))
			}
			return signers, nil
		},
	}
}

func (f *fleet) publisher() *publisher.Publisher {
	f.t.Helper()
	p, err := publisher.Open(f.cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

func (f *fleet) publish(ch manifest.Channel, version, content string, names ...string) {
	f.t.Helper()
	if _, err := f.publisher().Publish(f.t.Context(), f.request(ch, version, content, names...)); err != nil {
		f.t.Fatal(err)
	}
}

// draft writes the next release of a channel into a file.
func (f *fleet) draft(ch manifest.Channel, version, content string) string {
	f.t.Helper()
	payload, _, err := f.publisher().Draft(f.t.Context(), f.request(ch, version, content))
	if err != nil {
		f.t.Fatal(err)
	}
	return f.file("draft-"+version+".json", string(payload))
}

func (f *fleet) source() ceremony.Source {
	return ceremony.Source{Store: f.cfg.Store, Places: f.cfg.Places(), Clock: f.cfg.Clock}
}

func (f *fleet) open() *ceremony.Fleet {
	f.t.Helper()
	fl, err := f.source().Open(f.t.Context(), true)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(fl.Close)
	return fl
}

// signing is a request in which the key of that name says yes.
func (f *fleet) signing(file, name string) ceremony.SignRequest {
	return ceremony.SignRequest{
		File: file,
		Keys: func(context.Context) ([]keys.Signer, error) {
			return []keys.Signer{keystest.New(f.t, name)}, nil
		},
		Confirm: func(string) (bool, error) { return true, nil },
	}
}

func wantCode(t *testing.T, err error, code fault.Code) *fault.Error {
	t.Helper()
	var e *fault.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("error %v with code %q, want %q", err, fault.CodeOf(err), code)
	}
	return e
}

// The rules about time and sequence that a signer must not be talked out of.
func TestSignManifestRefuses(t *testing.T) {
	rows := []struct {
		name string
		edit func(*manifest.Manifest)
		late time.Duration // how long after the draft it is signed
		want fault.Code    // empty: signed
	}{
		{name: "as-drafted"},
		{name: "ten-minutes-ahead", edit: func(m *manifest.Manifest) { m.Issued = m.Issued.Add(10 * time.Minute) }},
		{name: "more-than-ten-minutes-ahead", want: fault.Policy, edit: func(m *manifest.Manifest) {
			m.Issued = m.Issued.Add(10*time.Minute + time.Second)
		}},
		{name: "dated-before-the-last-release", want: fault.Policy, edit: func(m *manifest.Manifest) {
			m.Issued = m.Issued.Add(-2 * time.Hour)
			m.Expires = m.Expires.Add(-2 * time.Hour)
		}},
		{name: "expires-when-issued", want: fault.Malformed, edit: func(m *manifest.Manifest) { m.Expires = m.Issued }},
		{name: "one-second-too-long", want: fault.Policy, edit: func(m *manifest.Manifest) { m.Expires = m.Expires.Add(time.Second) }},
		{name: "out-of-date-draft", want: fault.Expired, late: 91 * 24 * time.Hour},
		{name: "expired-root", want: fault.RootExpired, late: 3 * 365 * 24 * time.Hour},
		{name: "sequence-jump", want: fault.Policy, edit: func(m *manifest.Manifest) { m.Sequence++ }},
		{name: "sequence-of-the-last-release", want: fault.Equivocation, edit: func(m *manifest.Manifest) { m.Sequence-- }},
		{name: "version-regress", want: fault.Policy, edit: func(m *manifest.Manifest) { m.Release.Version = "0.9.0" }},
		{name: "another-app", want: fault.ChannelGone, edit: func(m *manifest.Manifest) { m.App = "other" }},
		{name: "another-fleet", want: fault.WrongTarget, edit: func(m *manifest.Manifest) { m.Repo[0] ^= 1 }},
		{name: "next-epoch", want: fault.RootBehind, edit: func(m *manifest.Manifest) { m.Epoch++ }},
		{name: "blocks-its-own-file", want: fault.Blocked, edit: func(m *manifest.Manifest) {
			m.Blocked = []manifest.Blocked{{SHA256: m.Artifacts[0].SHA256}}
		}},
		{name: "offers-what-nightly-has", want: fault.Policy, edit: func(m *manifest.Manifest) {
			sum := manifest.Sum([]byte("night"))
			a := &m.Artifacts[0]
			a.SHA256, a.Length = sum, 5
			a.Payloads[0].SHA256, a.Payloads[0].Length = sum, 5
		}},
		{name: "offers-what-an-older-nightly-had", want: fault.Policy, edit: func(m *manifest.Manifest) {
			sum := manifest.Sum([]byte("older night"))
			a := &m.Artifacts[0]
			a.SHA256, a.Length = sum, 11
			a.Payloads[0].SHA256, a.Payloads[0].Length = sum, 11
		}},
	}
	f := newFleet(t)
	f.publish(nightly, "1.1.0-n0", "older night", "ci")
	f.publish(nightly, "1.1.0-n1", "night", "ci")
	f.publish(stable, "1.0.0", "one", "ann", "ben")
	f.now = f.now.Add(time.Hour)
	draft := f.draft(stable, "1.1.0", "two")
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			d, err := ceremony.ReadManifest(draft)
			if err != nil {
				t.Fatal(err)
			}
			dir, text := t.TempDir(), d.Payload
			if row.edit != nil {
				row.edit(d.Manifest)
				text = rewrite(t, d.Manifest)
			}
			path := filepath.Join(dir, "draft.json")
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Fatal(err)
			}
			src := f.source()
			src.Clock = func() time.Time { return f.now.Add(row.late) }
			fl, err := src.Open(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			defer fl.Close()
			res, err := fl.SignManifest(t.Context(), f.signing(path, "ann"))
			signed, _ := filepath.Glob(filepath.Join(dir, "*.sig"))
			if row.want == "" {
				if err != nil || len(res.Files) != 1 || len(signed) != 1 {
					t.Fatalf("not signed: %v", err)
				}
				return
			}
			wantCode(t, err, row.want)
			if len(signed) > 0 {
				t.Errorf("refused, and signed all the same: %s", signed)
			}
		})
	}
}

// rewrite is a draft as a person may have edited it: with what Draft would refuse, too.
func rewrite(t *testing.T, m *manifest.Manifest) []byte {
	t.Helper()
	flat := m.Expires
	m.Expires = m.Issued.Add(time.Hour)
	blocked := m.Blocked
	m.Blocked = nil
	b, err := manifest.Draft(m, m.Issued)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), m.Expires.Format(time.RFC3339), flat.Format(time.RFC3339), 1)
	for _, bl := range blocked {
		text = strings.Replace(text, `"artifacts"`, `"blocked": [{"sha256": "`+bl.SHA256.String()+`"}], "artifacts"`, 1)
	}
	return []byte(text)
}

// A key that may sign, a key that may not, and one that may sign another channel.
func TestOnlyKeysOfTheRoleSign(t *testing.T) {
	f := newFleet(t)
	path := f.draft(stable, "1.0.0", "one")
	fl := f.open()
	for _, name := range []string{"ci", "root-1", "stranger"} {
		_, err := fl.SignManifest(t.Context(), f.signing(path, name))
		wantCode(t, err, fault.Policy)
	}
	if _, err := fl.SignManifest(t.Context(), f.signing(path, "cai")); err != nil {
		t.Fatal(err)
	}
	if _, err := fl.SignManifest(t.Context(), f.signing(path, "cai")); err != nil {
		t.Errorf("signing again: %v", err)
	}
}

func TestSignatureFilesStayWhereTheyBelong(t *testing.T) {
	f := newFleet(t)
	for comment, want := range map[string]string{
		"ann@acme":         "r.json.ann@acme.sig",
		"../../etc/passwd": "r.json..._.._etc_passwd.sig",
		"a b/c":            "r.json.a_b_c.sig",
		"..":               "",
		"":                 "",
	} {
		signer, err := keys.Generate(comment)
		if err != nil {
			t.Fatal(err)
		}
		d, err := ceremony.DraftRoot(nil, ceremony.RootDraft{
			Fleet: "acme", Root: &keys.Role{Threshold: 1, Keys: []keys.PublicKey{signer.Public(), keystest.New(t, "root-2").Public()}},
			Channels: []ceremony.ChannelDraft{{Channel: stable, Release: f.role(1, "ann")}},
		}, f.now)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		path := filepath.Join(dir, "r.json")
		if err := os.WriteFile(path, d.Payload, 0o644); err != nil {
			t.Fatal(err)
		}
		req := f.signing(path, "")
		req.Keys = func(context.Context) ([]keys.Signer, error) { return []keys.Signer{signer}, nil }
		res, err := ceremony.SignRoot(t.Context(), nil, req, f.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Files[0]; filepath.Dir(got) != dir || want != "" && filepath.Base(got) != want {
			t.Errorf("comment %q: %s, want %s", comment, got, want)
		}
		// Another's file of that name is not overwritten.
		if err := os.WriteFile(res.Files[0], []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err = ceremony.SignRoot(t.Context(), nil, req, f.now)
		wantCode(t, err, fault.Usage)
	}
}

func TestExpiryIsSpokenOfInTime(t *testing.T) {
	f := newFleet(t)
	root := f.open().Root
	const day = 24 * time.Hour
	for left, want := range map[time.Duration]string{
		91 * day:             "",
		90*day + time.Second: "",
		90 * day:             "90-day warning",
		30*day + time.Second: "90-day warning",
		30 * day:             "30-day warning",
		7*day + time.Second:  "30-day warning",
		7 * day:              "7-day warning",
		time.Second:          "7-day warning",
	} {
		got := ceremony.ExpiryWarning(root, root.Expires.Add(-left))
		if want == "" && got != "" || want != "" && !strings.Contains(got, want) {
			t.Errorf("%s left: %q, want %q", left, got, want)
		}
	}
	if _, err := ceremony.CheckRoot(root, root.Expires); !errors.Is(err, fault.RootExpired) {
		t.Errorf("at its expiry: %v", err)
	}
}

// A lock that a signer holds keeps a publisher from giving the same number out, and the
// other way round.
func TestSigningLocksTheRepository(t *testing.T) {
	f := newFleet(t)
	path := f.draft(stable, "1.0.0", "one")
	req := f.signing(path, "ann")
	hurry := func() context.Context { // nobody waits for as long as a person looks
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	asked := false
	req.Confirm = func(string) (bool, error) {
		asked = true
		_, err := f.publisher().Publish(hurry(), f.request(stable, "1.0.1", "two", "ann", "ben"))
		wantCode(t, err, fault.Locked)
		return true, nil
	}
	if _, err := f.open().SignManifest(t.Context(), req); err != nil || !asked {
		t.Fatal(err)
	}
	_, err := f.source().Open(hurry(), true)
	wantCode(t, err, fault.Locked)
}

// What is higher or different elsewhere stops a signature as it stops a release.
func TestSigningComparesWithMirrors(t *testing.T) {
	f := newFleet(t)
	f.publish(stable, "1.0.0", "one", "ann", "ben")
	path := f.draft(stable, "1.1.0", "two")
	mirror := filepath.Join(f.dir, "mirror")
	if err := os.CopyFS(mirror, os.DirFS(filepath.Join(f.cfg.Store, "tree"))); err != nil {
		t.Fatal(err)
	}
	ahead := f.draft(stable, "1.2.0", "three")
	b, err := os.ReadFile(ahead)
	if err != nil {
		t.Fatal(err)
	}
	f.cfg.Mirrors = []string{mirror}
	if _, err := f.open().SignManifest(t.Context(), f.signing(path, "ann")); err != nil {
		t.Fatalf("the same everywhere: %v", err)
	}
	name := filepath.Join(mirror, filepath.FromSlash(tree.Manifest(stable)))
	if err := os.WriteFile(name, f.sign(b, manifest.TypeManifest, "ann", "ben"), 0o644); err != nil {
		t.Fatal(err)
	}
	fl, err := f.source().Open(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fl.SignManifest(t.Context(), f.signing(path, "ben"))
	wantCode(t, err, fault.Equivocation)
	// The one that is out there may be signed by one more: it is that one.
	if _, err := fl.SignManifest(t.Context(), f.signing(ahead, "cai")); err != nil {
		t.Errorf("the very release that is out there: %v", err)
	}
}
