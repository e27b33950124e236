package publisher

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
)

func (f *testFleet) stored() *manifest.Manifest {
	f.t.Helper()
	env, err := manifest.ParseEnvelope(f.read(tree.Manifest(stable)), manifest.TypeManifest)
	if err != nil {
		f.t.Fatal(err)
	}
	m, err := manifest.ReadManifestDraft(env.Payload)
	if err != nil {
		f.t.Fatal(err)
	}
	return m
}

func TestRefreshKeepsEverythingButNumberAndDates(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	req := f.request("1.0.0", "one", f.release...)
	req.Notes, req.Severity = "notes", "security"
	req.Block = []manifest.Blocked{{SHA256: manifest.Sum([]byte("bad")), Reason: "bad"}}
	if _, err := f.open().Publish(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	before := f.stored()
	f.now = f.now.Add(time.Hour)
	again := AgainRequest{Channel: stable, Expires: 48 * time.Hour, Keys: req.Keys}
	if _, err := f.open().Refresh(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	after := f.stored()
	if after.Sequence != 2 || !after.Issued.Equal(f.now) || after.Expires.Sub(after.Issued) != 48*time.Hour {
		t.Errorf("sequence %d, issued %s, expires %s", after.Sequence, after.Issued, after.Expires)
	}
	after.Sequence, after.Issued, after.Expires = before.Sequence, before.Issued, before.Expires
	a, err := manifest.Draft(before, f.now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := manifest.Draft(after, f.now)
	if err != nil || string(a) != string(b) {
		t.Errorf("%v: more changed than that:\n%s\n%s", err, a, b)
	}
}

// A release whose bytes are gone must not be offered again.
func TestFilesThatAreGoneAreNotOfferedAgain(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", "one")
	f.publish("2.0.0", "two")
	keys := f.request("x", "x", f.release...).Keys
	yank := YankRequest{AgainRequest: AgainRequest{Channel: stable, Keys: keys}, Version: "2.0.0", To: "1.0.0", Reason: "bad", AllowVersionRegress: true}
	one := filepath.Join(f.open().Tree(), filepath.FromSlash(tree.Data(manifest.Sum([]byte("one")))))
	if err := os.Rename(one, one+".away"); err != nil {
		t.Fatal(err)
	}
	_, err := f.open().Yank(t.Context(), yank)
	wantCode(t, err, fault.NotFound)
	if got := f.stored(); got.Sequence != 2 {
		t.Errorf("sequence %d", got.Sequence)
	}
	if err := os.Rename(one+".away", one); err != nil {
		t.Fatal(err)
	}
	if _, err := f.open().Yank(t.Context(), yank); err != nil {
		t.Fatal(err)
	}
	if got := f.stored(); got.Sequence != 3 || got.Release.Version != "1.0.0" || got.Rollout != nil || len(got.Blocked) != 1 {
		t.Errorf("%+v", got)
	}
	// What was taken back is not offered again.
	yank.Version, yank.To = "1.0.0", "2.0.0"
	_, err = f.open().Yank(t.Context(), yank)
	wantCode(t, err, fault.Blocked)
}

// A release is taken back whatever is said of it, if that can be signed at all.
func TestReasonsOfAYank(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	f.publish("1.0.0", "one")
	f.publish("2.0.0", "two")
	yank := YankRequest{AgainRequest: AgainRequest{Channel: stable, Keys: with(f.release...)}, Version: "2.0.0", To: "1.0.0", AllowVersionRegress: true}
	for _, yank.Reason = range []string{"two\nlines", "\x1b[31mred", strings.Repeat("x", 257)} {
		_, err := f.open().Yank(t.Context(), yank)
		wantCode(t, err, fault.Usage)
	}
	yank.Reason = "x" + strings.Repeat("ä", 127)
	if _, err := f.open().Yank(t.Context(), yank); err != nil {
		t.Fatal(err)
	}
	if b := f.stored().Blocked; len(b) != 1 || !strings.HasPrefix(b[0].Reason, "2.0.0 yanked: xää") {
		t.Errorf("blocked %+v", b)
	}
}

// An epoch that root ended began with a theft: what was signed there is not signed again.
func TestRefreshDoesNotCarryAReleaseIntoANewEpoch(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	req := f.request("1.0.0", "one", f.release...)
	req.Block = []manifest.Blocked{{SHA256: manifest.Sum([]byte("bad")), Reason: "bad"}}
	if _, err := f.open().Publish(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	first, err := manifest.ParseEnvelope(f.read(tree.Root(1)), manifest.TypeRoot)
	if err != nil {
		t.Fatal(err)
	}
	hash := first.PayloadHash()
	f.root.Version, f.root.ID, f.root.Prev = 2, &hash, &hash
	f.root.Channels[0].Epoch = 2
	f.write(tree.Root(2), f.sign(f.draftRoot(), manifest.TypeRoot, f.rootKey))

	_, err = f.open().Refresh(t.Context(), AgainRequest{Channel: stable, Keys: req.Keys})
	wantCode(t, err, fault.NotFound)
	// What was blocked is as bad in the new epoch, unless somebody says otherwise.
	if _, err := f.open().Publish(t.Context(), f.request("1.0.0", "one", f.release...)); err != nil {
		t.Fatal(err)
	}
	if got := f.stored(); got.Order() != (manifest.Order{Epoch: 2, Sequence: 1}) || len(got.Blocked) != 1 {
		t.Errorf("%s with %d blocked", got.Order(), len(got.Blocked))
	}
	free := f.request("1.1.0", "two", f.release...)
	free.Unblock = []manifest.Digest{manifest.Sum([]byte("bad"))}
	if _, err := f.open().Publish(t.Context(), free); err != nil {
		t.Fatal(err)
	}
	if got := f.stored(); len(got.Blocked) != 0 {
		t.Errorf("%d blocked", len(got.Blocked))
	}
}

// A key is replaced, and the release that lost its threshold gets new signatures under
// the same payload: published again it keeps its number.
func TestTheSamePayloadIsPublishedAgainWithNewSignatures(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme", "release-2@acme")
	f.publish("1.0.0", "one")
	first, err := manifest.ParseEnvelope(f.read(tree.Root(1)), manifest.TypeRoot)
	if err != nil {
		t.Fatal(err)
	}
	hash := first.PayloadHash()
	f.root.Version, f.root.ID, f.root.Prev = 2, &hash, &hash
	gone := f.root.Channels[0].Release.KeyIDs[0]
	f.root.Channels[0].Release = role(1, f.release[1:])
	delete(f.root.Keys, gone)
	f.write(tree.Root(2), f.sign(f.draftRoot(), manifest.TypeRoot, f.rootKey))

	old := f.read(tree.Manifest(stable))
	env := filepath.Join(t.TempDir(), "m1.env.json")
	if err := os.WriteFile(env, old, 0o644); err != nil {
		t.Fatal(err)
	}
	req := EnvelopeRequest{Envelope: env, Keys: f.request("", "", f.release[1]).Keys}
	res, err := f.open().PublishEnvelope(t.Context(), req)
	if err != nil || res.Sequence != 1 || len(res.SignedBy) != 1 {
		t.Fatalf("%v, %+v", err, res)
	}
	// Other content under that number stays a fork.
	payload, _, err := f.open().Draft(t.Context(), f.request("1.0.1", "two"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.ReadManifestDraft(payload)
	if err != nil {
		t.Fatal(err)
	}
	m.Sequence = 1
	if payload, err = manifest.Draft(m, f.now); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(env, f.sign(payload, manifest.TypeManifest, f.release[1]), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = f.open().PublishEnvelope(t.Context(), EnvelopeRequest{Envelope: env, Files: []string{f.request("1.0.1", "two").Files[0].Path}})
	wantCode(t, err, fault.Rollback)
}
