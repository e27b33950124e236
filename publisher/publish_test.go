package publisher

import (
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
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

func TestTorrentLeadsStockClientsToThePublicURLAndTheMirrors(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.cfg.Serve.PublicURL = "http://127.0.0.1:9/" // nothing answers there
	f.cfg.Mirrors = []string{filepath.Join(t.TempDir(), "mirror"), "http://127.0.0.1:9/m/"}
	f.publish("1.0.0", "a build")
	torrent := string(f.read("releases/acme/1.0.0/linux-amd64.torrent"))
	for _, want := range []string{
		"8:announce27:http://127.0.0.1:9/announce",
		"8:url-listl52:http://127.0.0.1:9/m/releases/acme/1.0.0/linux-amd64" +
			"50:http://127.0.0.1:9/releases/acme/1.0.0/linux-amd64e",
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
	bs, err := f.open().readBuilds(t.Context(), "acme", manifest.KindBinary, good.Files)
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

// Another publish waits its turn, and does not when it has no time: what the first one does
// takes as long as finding the token.
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
	hurry, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := f.open().Publish(hurry, f.request("1.0.0", "a build", f.release...))
	e := wantCode(t, err, fault.Locked)
	if !strings.Contains(e.Message, "process") {
		t.Errorf("message %q names no process", e.Message)
	}
	again := f.request("1.0.0", "a build", f.release...)
	time.AfterFunc(300*time.Millisecond, func() { close(release) })
	if res, err := f.open().Publish(t.Context(), again); err != nil || !res.Already {
		t.Errorf("after the first one: %+v, %v", res, err)
	}
	wg.Wait()
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
