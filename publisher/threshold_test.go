package publisher

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/keys/keystest"
	"shoal/manifest"
	"shoal/manifest/tree"
)

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
				bs, err := f.open().readBuilds(t.Context(), "acme", "binary", f.request("2", "elsewhere").Files)
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
