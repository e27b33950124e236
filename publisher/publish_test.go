package publisher

import (
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/keys/keystest"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
	"shoal/swarm"
)

func TestPublishIsBelievedByAnAgent(t *testing.T) {
	f := newFleet(t, 2, "release-1@acme", "release-2@acme", "release-3@acme")
	req := f.request("2.4.1", "the linux build", f.release[2], f.release[0])
	req.Files = append(req.Files, File{Path: f.build("acme_2.4.1_windows_amd64.exe", "the windows build")})
	req.Notes, req.Severity = "Fixes data loss.\nNothing else.", "security"
	res, err := f.open().Publish(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	v, err := f.agent()
	if err != nil {
		t.Fatalf("an agent refuses what was published: %v", err)
	}
	m := v.Manifest
	if m.Order() != (manifest.Order{Epoch: 1, Sequence: 1}) || m.Release.Version != "2.4.1" || m.Release.Notes != req.Notes {
		t.Errorf("manifest %+v", m)
	}
	if len(v.SignedBy) != 2 || len(res.SignedBy) != 2 || res.SignedBy[0].Name != "release-1@acme" {
		t.Errorf("signed by %v, told %v", v.SignedBy, res.SignedBy)
	}
	for _, want := range []struct{ goos, content, release, name string }{
		{"linux", "the linux build", "linux-amd64", "acme-linux-amd64"},
		{"windows", "the windows build", "windows-amd64", "acme-windows-amd64.exe"},
	} {
		a, err := v.Select(manifest.Platform{OS: want.goos, Arch: "amd64"})
		if err != nil {
			t.Fatal(err)
		}
		pl, ok := a.Usable()
		if !ok || a.SHA256 != sha256.Sum256([]byte(want.content)) || a.Mode != "0755" || pl.SHA256 != a.SHA256 {
			t.Errorf("artifact %+v", a)
		}
		if got := f.read(tree.Data(pl.SHA256)); string(got) != want.content {
			t.Errorf("data is %q", got)
		}
		info, err := swarm.OpenInfo(f.read(tree.Info(pl.InfoSHA256)), swarm.Ref{
			Infohash: pl.Infohash, InfoSHA256: pl.InfoSHA256, Length: pl.Length,
		})
		if err != nil {
			t.Errorf("info dict: %v", err)
		} else if info.Name() != want.name {
			t.Errorf("the torrent is called %q, want %q", info.Name(), want.name)
		}
		if got := f.read("releases/acme/2.4.1/" + want.release); string(got) != want.content {
			t.Errorf("release file is %q", got)
		}
		if got := f.read("releases/acme/2.4.1/" + want.release + ".magnet"); !strings.HasPrefix(string(got), "magnet:?xt=urn:btih:"+pl.Infohash.String()) {
			t.Errorf("magnet link %q", got)
		}
	}
	for name := range f.snapshot() {
		if !tree.Valid(name) {
			t.Errorf("the tree holds %q, which is none of its names", name)
		}
	}
}

func TestTorrentLeadsStockClientsToThePublicURL(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.cfg.Serve.PublicURL = "http://127.0.0.1:9/" // nothing answers there
	f.publish("1.0.0", "a build")
	torrent := string(f.read("releases/acme/1.0.0/linux-amd64.torrent"))
	for _, want := range []string{
		"8:announce27:http://127.0.0.1:9/announce",
		"8:url-listl50:http://127.0.0.1:9/releases/acme/1.0.0/linux-amd64e",
	} {
		if !strings.Contains(torrent, want) {
			t.Errorf("the torrent %q has no %q", torrent, want)
		}
	}
}

func TestPublishTwiceChangesNothing(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	first := f.publish("1.0.0", "a build")
	before := f.snapshot()
	f.now = f.now.Add(time.Hour)
	again := f.publish("1.0.0", "a build")
	if !again.Already || again.Manifest != first.Manifest || !again.Issued.Equal(first.Issued) {
		t.Errorf("second publish: %+v", again)
	}
	if diff := cmp.Diff(before, f.snapshot()); diff != "" {
		t.Errorf("the tree changed:\n%s", diff)
	}

	t.Run("puts-back-what-the-disk-lost", func(t *testing.T) {
		data := f.path(tree.Data(manifest.Sum([]byte("a build"))))
		if err := os.Remove(data); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(data, []byte("a bulid"), 0o444); err != nil {
			t.Fatal(err)
		}
		f.publish("1.0.0", "a build")
		if diff := cmp.Diff(before, f.snapshot()); diff != "" {
			t.Errorf("the tree is not whole again:\n%s", diff)
		}
	})
	t.Run("asks-for-no-key", func(t *testing.T) {
		req := f.request("1.0.0", "a build")
		req.Keys = nil
		if res, err := f.open().Publish(t.Context(), req); err != nil || !res.Already {
			t.Errorf("%+v, %v", res, err)
		}
	})
	t.Run("renews-what-has-expired", func(t *testing.T) {
		f.now = first.Expires
		if res := f.publish("1.0.0", "a build"); res.Already || res.Sequence != 2 {
			t.Errorf("%+v, want sequence 2", res)
		}
		if _, err := f.agent(); err != nil {
			t.Error(err)
		}
	})
}

func TestSequence(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", "one")
	if res := f.publish("1.1.0", "two"); res.Sequence != 2 || res.Previous != "1.0.0" || res.PreviousOrder != "1.1" {
		t.Errorf("%+v", res)
	}
	jump := f.request("1.2.0", "three", f.release...)
	jump.Sequence = 40
	if res, err := f.open().Publish(t.Context(), jump); err != nil || res.Sequence != 40 {
		t.Fatalf("%+v, %v", res, err)
	}
	back := f.request("1.3.0", "four", f.release...)
	back.Sequence = 40
	_, err := f.open().Publish(t.Context(), back)
	wantCode(t, err, fault.Rollback)
	if res := f.publish("1.3.0", "four"); res.Sequence != 41 {
		t.Errorf("sequence %d after 40", res.Sequence)
	}

	t.Run("a-higher-epoch-begins-anew", func(t *testing.T) {
		f.nextRoot(func(r *manifest.Root) { r.Channels[0].Epoch = 2 })
		if res := f.publish("1.4.0", "five"); res.Epoch != 2 || res.Sequence != 1 {
			t.Errorf("%d.%d, want 2.1", res.Epoch, res.Sequence)
		}
		if _, err := f.agent(); err != nil {
			t.Error(err)
		}
	})
	t.Run("a-replaced-key-keeps-the-numbers", func(t *testing.T) {
		f.publish("1.5.0", "six") // 2.2
		next := keystest.New(t, "release-2@acme")
		f.nextRoot(func(r *manifest.Root) {
			delete(r.Keys, f.release[0].Public().ID())
			f.release = []keys.Signer{next}
			f.addKey(next)
			r.Channels[0].Release = role(1, f.release)
		})
		if res := f.publish("1.6.0", "seven"); res.Epoch != 2 || res.Sequence != 3 {
			t.Errorf("%d.%d, want 2.3: machines have seen 2.2", res.Epoch, res.Sequence)
		}
		if _, err := f.agent(); err != nil {
			t.Error(err)
		}
	})
}

func TestRefusals(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.1.0", "published")
	stranger := keystest.New(t, "stranger@acme")
	before := f.snapshot()
	unreadable := f.build("secret-linux-amd64", "x")
	if err := os.Chmod(unreadable, 0); err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name string
		skip string
		req  func() PublishRequest
		want fault.Code
		says string
	}{
		{"no-key", "", func() PublishRequest { return f.request("1.2.0", "new") }, fault.Usage, "no key to sign"},
		{"key-not-in-role", "", func() PublishRequest { return f.request("1.2.0", "new", stranger) }, fault.Policy, "stranger@acme may not sign"},
		{"root-key-is-no-release-key", "", func() PublishRequest { return f.request("1.2.0", "new", f.rootKey) }, fault.Policy, "root-1@acme may not sign"},
		{"same-key-twice", "", func() PublishRequest {
			return f.request("1.2.0", "new", f.release[0], f.release[0])
		}, fault.Usage, "counts once"},
		{"no-file", "", func() PublishRequest {
			r := f.request("1.2.0", "new", f.release...)
			r.Files = nil
			return r
		}, fault.Usage, "nothing to publish"},
		{"missing-file", "", func() PublishRequest { return f.files("no-such-linux-amd64") }, fault.NotFound, "there is no file"},
		{"unreadable-file", asRoot(), func() PublishRequest { return f.files("secret-linux-amd64") }, fault.Permission, "cannot read"},
		{"empty-file", "", func() PublishRequest {
			f.build("empty-linux-amd64", "")
			return f.files("empty-linux-amd64")
		}, fault.Malformed, "is empty"},
		{"directory", "", func() PublishRequest {
			os.Mkdir(filepath.Join(f.dist, "dir-linux-amd64"), 0o755)
			return f.files("dir-linux-amd64")
		}, fault.Usage, "is not a file"},
		{"platform-twice", "", func() PublishRequest {
			f.build("a-linux-amd64", "a")
			f.build("b-linux-x86_64", "b")
			return f.files("a-linux-amd64", "b-linux-x86_64")
		}, fault.Usage, "two files for linux/amd64"},
		{"name-without-platform", "", func() PublishRequest {
			f.build("acme", "a")
			return f.files("acme")
		}, fault.Usage, "cannot tell the platform"},
		{"platform-nobody-has", "", func() PublishRequest {
			r := f.request("1.2.0", "new", f.release...)
			r.Files[0].Platform = manifest.Platform{OS: "linux", Arch: "x86_64"}
			return r
		}, fault.Usage, "there is no platform"},
		{"kind-nobody-knows", "", func() PublishRequest {
			r := f.request("1.2.0", "new", f.release...)
			r.Kind = "firmware"
			return r
		}, fault.Malformed, "kind"},
		{"version-with-traversal", "", func() PublishRequest { return f.request("../../1.2.0", "new", f.release...) }, fault.Usage, "cannot be a version"},
		{"version-that-is-a-device", "", func() PublishRequest { return f.request("nul", "new", f.release...) }, fault.Usage, "cannot be a version"},
		{"no-version", "", func() PublishRequest { return f.request("", "new", f.release...) }, fault.Usage, "cannot be a version"},
		{"older-version", "", func() PublishRequest { return f.request("1.0.9", "new", f.release...) }, fault.Policy, "is older than"},
		{"same-version-other-bytes", "", func() PublishRequest { return f.request("1.1.0", "new", f.release...) }, fault.Policy, "with other bytes"},
		{"believed-for-too-long", "", func() PublishRequest {
			r := f.request("1.2.0", "new", f.release...)
			r.Expires = DefaultMaxValidity + time.Second
			return r
		}, fault.Policy, "be believed for 90d"},
		{"notes-that-drive-a-terminal", "", func() PublishRequest {
			r := f.request("1.2.0", "new", f.release...)
			r.Notes = "\x1b[2J"
			return r
		}, fault.Malformed, "notes"},
		{"channel-root-does-not-have", "", func() PublishRequest {
			r := f.request("1.2.0", "new", f.release...)
			r.Channel.Name = "beta"
			return r
		}, fault.ChannelGone, "no channel acme/beta"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if r.skip != "" {
				t.Skip(r.skip)
			}
			_, err := f.open().Publish(t.Context(), r.req())
			if e := wantCode(t, err, r.want); !strings.Contains(e.Message, r.says) {
				t.Errorf("message %q, want one with %q", e.Message, r.says)
			}
			if diff := cmp.Diff(before, f.snapshot()); diff != "" {
				t.Errorf("a refused publish changed the tree:\n%s", diff)
			}
		})
	}
}

// files is a request for files of the dist directory by name.
func (f *fleet) files(names ...string) PublishRequest {
	req := PublishRequest{Channel: stable, Version: "1.2.0", Keys: with(f.release...), DraftDir: f.dist}
	for _, n := range names {
		req.Files = append(req.Files, File{Path: filepath.Join(f.dist, n)})
	}
	return req
}

func asRoot() string {
	if os.Geteuid() == 0 || runtime.GOOS == "windows" {
		return "root reads every file"
	}
	return ""
}

func TestVersionRegressOnPurpose(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.1.0", "published")
	req := f.request("1.0.9", "older", f.release...)
	req.AllowVersionRegress = true
	if res, err := f.open().Publish(t.Context(), req); err != nil || res.Sequence != 2 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestExpiredRootPublishesNothing(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.now = f.root.Expires
	_, err := f.open().Publish(t.Context(), f.request("1.0.0", "x", f.release...))
	wantCode(t, err, fault.RootExpired)
}

func TestClockBehindTheLastRelease(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.now = f.now.Add(time.Hour)
	f.publish("1.0.0", "x")
	f.now = f.now.Add(-time.Minute)
	_, err := f.open().Publish(t.Context(), f.request("1.1.0", "y", f.release...))
	if e := wantCode(t, err, fault.Policy); !strings.Contains(e.Message, "clock is behind") {
		t.Errorf("message %q", e.Message)
	}
}

func TestBlockedIsCarriedForward(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", "bad build")
	bad := manifest.Sum([]byte("bad build"))
	// What "release yank" will draft: the next sequence with the bad hash blocked.
	v, err := f.agent()
	if err != nil {
		t.Fatal(err)
	}
	m := *v.Manifest
	m.Sequence, m.Release.Version = 2, "1.0.1"
	m.Blocked = []manifest.Blocked{{SHA256: bad, Reason: "loses data"}}
	m.Artifacts = slices.Clone(m.Artifacts)
	good := f.request("1.0.1", "good build")
	bs, err := readBuilds(t.Context(), "acme", manifest.KindBinary, good.Files)
	if err != nil {
		t.Fatal(err)
	}
	defer bs.close()
	m.Artifacts = bs.artifacts()
	payload, err := manifest.Draft(&m, f.now)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(f.dist, "yank.env.json")
	if err := os.WriteFile(path, f.sign(payload, manifest.TypeManifest, f.release...), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f.open().PublishEnvelope(t.Context(), EnvelopeRequest{Envelope: path, DataDir: f.dist}); err != nil {
		t.Fatal(err)
	}
	f.publish("1.0.2", "another build")
	if v, err = f.agent(); err != nil || len(v.Manifest.Blocked) != 1 || v.Manifest.Blocked[0].SHA256 != bad {
		t.Errorf("blocked %+v, %v", v.Manifest.Blocked, err)
	}
	_, err = f.open().Publish(t.Context(), f.request("1.0.3", "bad build", f.release...))
	wantCode(t, err, fault.Blocked)
}

func TestBelowTheThreshold(t *testing.T) {
	f := newFleet(t, 2, "release-1@acme", "release-2@acme")
	before := f.snapshot()
	_, err := f.open().Publish(t.Context(), f.request("1.0.0", "a build", f.release[0]))
	e := wantCode(t, err, fault.Threshold)
	text := strings.Join(append(e.Detail, e.Next...), "\n")
	envelope := filepath.Join(f.dist, "acme-stable-1.1.env.json")
	for _, want := range []string{"1 of 2", "✓ release-1@acme", "✗ release-2@acme", "Nothing was published",
		"shoal publish --envelope " + envelope} {
		if !strings.Contains(text, want) {
			t.Errorf("the error does not say %q:\n%s", want, text)
		}
	}
	if diff := cmp.Diff(before, f.snapshot()); diff != "" {
		t.Errorf("the tree changed:\n%s", diff)
	}
	draft, err := os.ReadFile(filepath.Join(f.dist, "acme-stable-1.1.draft.json"))
	if err != nil {
		t.Fatal(err)
	}
	half, err := os.ReadFile(envelope)
	if err != nil {
		t.Fatal(err)
	}
	f.now = f.now.Add(time.Hour) // the next signer comes later

	t.Run("other-content-under-the-same-number-is-refused", func(t *testing.T) {
		_, err := f.open().Publish(t.Context(), f.request("1.0.0", "another build", f.release[1]))
		wantCode(t, err, fault.Equivocation)
	})
	finished := func(t *testing.T, res *PublishResult, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if res.Manifest != manifest.Sum(draft).Prefixed() {
			t.Errorf("what was published is not what was reviewed")
		}
		if v, err := f.agent(); err != nil || len(v.SignedBy) != 2 {
			t.Errorf("%+v, %v", v, err)
		}
		if left, _ := filepath.Glob(filepath.Join(f.dist, "acme-stable-*")); len(left) != 0 {
			t.Errorf("%v is still there", left)
		}
	}
	undo := func() {
		os.Remove(f.path(tree.Manifest(stable)))
		f.build("acme-stable-1.1.env.json", string(half))
		f.build("acme-stable-1.1.draft.json", string(draft))
	}
	t.Run("second-signer-publishes-the-same-files", func(t *testing.T) {
		res, err := f.open().Publish(t.Context(), f.request("1.0.0", "a build", f.release[1]))
		finished(t, res, err)
	})
	undo()
	t.Run("second-signer-has-the-envelope", func(t *testing.T) {
		res, err := f.open().PublishEnvelope(t.Context(), EnvelopeRequest{
			Envelope: envelope, Files: []string{filepath.Join(f.dist, "acme-linux-amd64")}, Keys: with(f.release[1]),
		})
		finished(t, res, err)
	})
	undo()
	t.Run("first-signer-again-is-still-one", func(t *testing.T) {
		_, err := f.open().Publish(t.Context(), f.request("1.0.0", "a build", f.release[0]))
		wantCode(t, err, fault.Threshold)
	})
}

func TestEnvelopeRefusals(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", "one")
	v, err := f.agent()
	if err != nil {
		t.Fatal(err)
	}
	next := *v.Manifest
	next.Sequence = 2
	envelope := func(change func(*manifest.Manifest), signers ...keys.Signer) string {
		m := next
		m.Artifacts = slices.Clone(m.Artifacts)
		if change != nil {
			change(&m)
		}
		payload, err := manifest.Draft(&m, f.now)
		if err != nil {
			t.Fatal(err)
		}
		return f.build("x.env.json", string(f.sign(payload, manifest.TypeManifest, signers...)))
	}
	rows := []struct {
		name string
		path func() string
		want fault.Code
	}{
		{"not-there", func() string { return filepath.Join(f.dist, "absent.json") }, fault.NotFound},
		{"not-an-envelope", func() string { return f.build("x.env.json", "{}") }, fault.Malformed},
		{"a-root", func() string { return f.build("x.env.json", string(f.read(tree.Root(1)))) }, fault.WrongType},
		{"endless", func() string { return f.build("x.env.json", strings.Repeat(" ", manifest.MaxManifest+1)) }, fault.TooLarge},
		{"another-fleet", func() string {
			return envelope(func(m *manifest.Manifest) { m.Repo = manifest.Sum([]byte("another")) }, f.release...)
		}, fault.WrongTarget},
		{"signed-by-a-stranger", func() string { return envelope(nil, keystest.New(t, "stranger@acme")) }, fault.Threshold},
		{"an-old-number", func() string {
			return envelope(func(m *manifest.Manifest) { m.Sequence, m.Release.Version = 1, "0.9.0" }, f.release...)
		}, fault.Rollback},
		{"a-build-that-is-not-here", func() string {
			return envelope(func(m *manifest.Manifest) {
				bs, err := readBuilds(t.Context(), "acme", "binary", f.request("2", "elsewhere").Files)
				if err != nil {
					t.Fatal(err)
				}
				bs.close()
				m.Artifacts = bs.artifacts()
				f.build("acme-linux-amd64", "local")
			}, f.release...)
		}, fault.NotFound},
		{"another-torrent-than-ours", func() string {
			return envelope(func(m *manifest.Manifest) {
				m.Artifacts[0].Payloads = slices.Clone(m.Artifacts[0].Payloads)
				m.Artifacts[0].Payloads[0].Infohash[0] ^= 1
			}, f.release...)
		}, fault.BadInfo},
	}
	before := f.snapshot()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			_, err := f.open().PublishEnvelope(t.Context(), EnvelopeRequest{Envelope: r.path(), DataDir: f.dist})
			wantCode(t, err, r.want)
			if diff := cmp.Diff(before, f.snapshot()); diff != "" {
				t.Errorf("the tree changed:\n%s", diff)
			}
		})
	}
}

func TestDryRunAndDraftLeaveTheRepositoryAlone(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	before := f.snapshot()
	req := f.request("1.0.0", "a build", f.release...)
	req.DryRun = true
	req.Keys = func(context.Context) ([]keys.Signer, error) {
		t.Error("a dry run opened the keys")
		return nil, nil
	}
	if res, err := f.open().Publish(t.Context(), req); err != nil || !res.DryRun || res.Sequence != 1 {
		t.Errorf("%+v, %v", res, err)
	}
	req.DryRun, req.DraftOnly = false, true
	res, err := f.open().Publish(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	draft, err := os.ReadFile(res.Draft)
	if err != nil || manifest.Sum(draft).Prefixed() != res.Manifest {
		t.Errorf("draft %q, %v", draft, err)
	}
	if diff := cmp.Diff(before, f.snapshot()); diff != "" {
		t.Errorf("the tree changed:\n%s", diff)
	}
}

func TestOnlyOnePublishes(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	holding, release := make(chan struct{}), make(chan struct{})
	slow := f.request("1.0.0", "a build")
	slow.Keys = func(context.Context) ([]keys.Signer, error) {
		close(holding) // somebody looks for the token, with the repository locked
		<-release
		return f.release, nil
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := f.open().Publish(t.Context(), slow); err != nil {
			t.Error(err)
		}
	})
	<-holding
	_, err := f.open().Publish(t.Context(), f.request("1.0.0", "a build", f.release...))
	e := wantCode(t, err, fault.Locked)
	if !strings.Contains(e.Message, "process") {
		t.Errorf("message %q names no process", e.Message)
	}
	close(release)
	wg.Wait()
	if res := f.publish("1.0.0", "a build"); !res.Already {
		t.Errorf("%+v", res)
	}
}

// A compiler writes its output in place. What was published must not change with it.
func TestPublishedDataIsACopy(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", "a build")
	f.build("acme-linux-amd64", "b build") // the same inode, truncated and written again
	if got := f.read(tree.Data(manifest.Sum([]byte("a build")))); string(got) != "a build" {
		t.Errorf("what was published is now %q", got)
	}
}

func TestBuildThatChangesWhileItIsPublished(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	before := f.snapshot()
	req := f.request("1.0.0", "a build")
	req.Keys = func(context.Context) ([]keys.Signer, error) {
		f.build("acme-linux-amd64", "b build!")
		return f.release, nil
	}
	_, err := f.open().Publish(t.Context(), req)
	wantCode(t, err, fault.ContentMismatch)
	if diff := cmp.Diff(before, f.snapshot()); diff != "" {
		t.Errorf("the tree changed:\n%s", diff)
	}
}

func TestTamperedRepositoryIsNotPublishedTo(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", "one")
	env := f.read(tree.Manifest(stable))
	f.write(tree.Manifest(stable), []byte(strings.Replace(string(env), `"payload": "`, `"payload": "e30K`, 1)))
	_, err := f.open().Publish(t.Context(), f.request("1.1.0", "two", f.release...))
	if err == nil {
		t.Fatal("published on top of a manifest that nobody signed")
	}
	if e := wantCode(t, err, fault.CodeOf(err)); !strings.Contains(e.Message, "repository's own m/acme/stable.json") {
		t.Errorf("message %q", e.Message)
	}
}

func TestPlatformOf(t *testing.T) {
	rows := []struct{ name, want string }{
		{"acme-linux-amd64", "linux/amd64"},
		{"dist/acme-windows-amd64.exe", "windows/amd64"},
		{"acme_2.4.1_Darwin_arm64", "darwin/arm64"},
		{"acme_Linux_x86_64.tar.gz", "linux/amd64"},
		{"acme-1.0.0-linux-aarch64", "linux/arm64"},
		{"acme-macos-arm64", "darwin/arm64"},
		{"acme", ""},
		{"linux", ""},
		{"acme-linux", ""},
		{"acme-linux-armv7", ""},
		{"acme-amd64-linux", ""},
		{"", ""},
	}
	for _, r := range rows {
		got, err := PlatformOf(r.name)
		if r.want == "" && err == nil || r.want != "" && (err != nil || got.String() != r.want) {
			t.Errorf("PlatformOf(%q) = %v, %v; want %q", r.name, got, err, r.want)
		}
	}
}

func TestHistoryAndChannelNames(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	p := f.open()
	if list, err := p.Releases(); err != nil || len(list) != 0 {
		t.Errorf("%v, %v before the first release", list, err)
	}
	f.publish("1.0.0", "one")
	f.publish("1.1.0", "two")
	list, err := p.Releases(stable)
	if err != nil || len(list) != 2 || list[0].Version != "1.1.0" || list[0].State != ReleaseCurrent || list[1].State != ReleaseReplaced {
		t.Errorf("%+v, %v", list, err)
	}
	for _, name := range []string{"1.0.0", "1.1"} {
		if r, err := p.Release(stable, name); err != nil || r.Version != "1.0.0" || r.SignedBy[0].Name != "release-1@acme" {
			t.Errorf("Release(%q) = %+v, %v", name, r, err)
		}
	}
	_, err = p.Release(stable, "9.9.9")
	wantCode(t, err, fault.NotFound)
	f.now = f.now.Add(DefaultMaxValidity)
	if list, err = p.Releases(stable); err != nil || list[0].State != ReleaseExpired {
		t.Errorf("%+v, %v after 90 days", list, err)
	}

	for _, name := range []string{"", "stable", "acme/stable"} {
		if ch, err := p.Channel(name); err != nil || ch != stable {
			t.Errorf("Channel(%q) = %v, %v", name, ch, err)
		}
	}
	for _, name := range []string{"beta", "other/stable"} {
		_, err := p.Channel(name)
		wantCode(t, err, fault.ChannelGone)
	}
	f.nextRoot(func(r *manifest.Root) {
		r.Channels = append(r.Channels, r.Channels[0])
		r.Channels[1].App = "other"
	})
	if _, err = p.Channel("stable"); err != nil {
		t.Errorf("the configured app does not decide: %v", err)
	}
	f.cfg.App = ""
	_, err = f.open().Channel("stable")
	wantCode(t, err, fault.Usage)
	_, err = f.open().Channel("")
	wantCode(t, err, fault.Usage)
}

func TestLink(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	_, err := f.open().Link(LinkRequest{Channel: stable})
	wantCode(t, err, fault.Config)
	f.publish("1.0.0", "one")
	f.cfg.Serve = ServeConfig{PublicURL: "https://updates.acme.lan:7800", Swarm: ":7801"}
	l, err := f.open().Link(LinkRequest{Channel: stable})
	if err != nil {
		t.Fatal(err)
	}
	if l.MinRoot != 1 || l.MinSequence.String() != "1.1" || !slices.Equal(l.At, []string{"https://updates.acme.lan:7800"}) ||
		!slices.Equal(l.Peers, []string{"updates.acme.lan:7801"}) {
		t.Errorf("link %+v", l)
	}
}

func TestConfigValidate(t *testing.T) {
	good := Config{Store: "/srv/acme", App: "acme", Channels: []ChannelConfig{{Name: "stable", Expires: time.Hour}},
		Serve: ServeConfig{Listen: ":0", Swarm: "[::1]:7801", PublicURL: "http://updates.acme.lan:7800", Up: 1}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name   string
		change func(*Config)
		key    string
	}{
		{"no-store", func(c *Config) { c.Store = "" }, "store"},
		{"app-with-traversal", func(c *Config) { c.App = "../acme" }, "app"},
		{"channel-without-name", func(c *Config) { c.Channels = []ChannelConfig{{}} }, "channels"},
		{"channel-twice", func(c *Config) { c.Channels = append(c.Channels, c.Channels...) }, "channels"},
		{"half-a-second", func(c *Config) { c.Channels = []ChannelConfig{{Name: "x", Expires: time.Second / 2}} }, "channels"},
		{"listen-without-port", func(c *Config) { c.Serve.Listen = "localhost" }, "serve.listen"},
		{"swarm-with-a-port-too-high", func(c *Config) { c.Serve.Swarm = ":70000" }, "serve.swarm"},
		{"public-url-without-host", func(c *Config) { c.Serve.PublicURL = "http://" }, "serve.public_url"},
		{"public-url-with-a-password", func(c *Config) { c.Serve.PublicURL = "http://a:b@c" }, "serve.public_url"},
		{"public-url-of-another-kind", func(c *Config) { c.Serve.PublicURL = "ftp://c" }, "serve.public_url"},
		{"negative-rate", func(c *Config) { c.Serve.Up = -1 }, "serve.up"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c := good
			r.change(&c)
			if e := wantCode(t, c.Validate(), fault.Config); e.Facts["key"] != r.key {
				t.Errorf("blames %v, want %s", e.Facts["key"], r.key)
			}
		})
	}
}

func TestOpenWithoutRepository(t *testing.T) {
	_, err := Open(Config{Store: t.TempDir()})
	wantCode(t, err, fault.NotFound)
	_, err = repo.Open(filepath.Join(t.TempDir(), "absent"))
	wantCode(t, err, fault.NotFound)
}
