package publisher

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
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
func (f *testFleet) files(names ...string) PublishRequest {
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
