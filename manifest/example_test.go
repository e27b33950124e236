package manifest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
)

// A machine that was told the fleet id takes roots and a manifest from a source it does
// not trust, and picks its artifact.
func ExampleTrust() {
	source := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", "good", name))
		if err != nil {
			fmt.Println(err)
		}
		return b
	}
	noon := func() time.Time { return time.Date(2026, 10, 13, 12, 0, 0, 0, time.UTC) }
	fleetID, err := manifest.ParsePrefixed("sha256:c6b6dc83aa352199140c038139befafb062cf73f625878703274f7dc4fd19856")
	if err != nil {
		fmt.Println(err)
		return
	}

	trust, _, err := manifest.Pin(source("root-1.json"), fleetID, manifest.Options{Clock: noon, AgentVersion: "1.0.0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := trust.UpdateRoot(source("root-2.json")); err != nil {
		fmt.Println(err)
		return
	}
	cycle, err := trust.Begin()
	if err != nil {
		fmt.Println(err)
		return
	}
	acme := manifest.Channel{App: "acme", Name: "stable"}
	release, _, err := cycle.Manifest(acme, source("manifest-42.json"))
	if err != nil {
		fmt.Println(err)
		return
	}
	artifact, err := release.Select(manifest.Platform{OS: "linux", Arch: "amd64"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(release.Manifest.Name(), release.Manifest.Order(), release.Manifest.Release.Version)
	fmt.Println(artifact.Name, artifact.Length, artifact.Mode)
	fmt.Println(cycle.Authorize(acme, artifact.SHA256))

	// The same again later is no news, and something older is an attack.
	_, _, err = cycle.Manifest(acme, source("../bad/manifest/rollback.41.json"))
	fmt.Println(fault.CodeOf(err))
	// Output:
	// acme/stable 1.42 1.8.3
	// acme 786432 0755
	// <nil>
	// rollback
}

// The keepers of a new fleet draft its first root, review the file, and sign those bytes.
func ExampleDraftRoot() {
	alice, err := keys.Generate("alice")
	if err != nil {
		fmt.Println(err)
		return
	}
	release, err := keys.Generate("release-1")
	if err != nil {
		fmt.Println(err)
		return
	}
	now := time.Date(2026, 10, 13, 12, 0, 0, 0, time.UTC)
	payload, err := manifest.DraftRoot(&manifest.Root{
		Version: 1, Fleet: "acme", Issued: now, Expires: now.AddDate(2, 0, 0),
		Root: manifest.RoleSpec{Threshold: 1, KeyIDs: []keys.ID{alice.Public().ID()}},
		Channels: []manifest.ChannelSpec{{
			App: "acme", Channel: "stable", Epoch: 1, MaxValidity: 90 * 24 * time.Hour,
			Release: manifest.RoleSpec{Threshold: 1, KeyIDs: []keys.ID{release.Public().ID()}},
		}},
		Keys: map[keys.ID]string{
			alice.Public().ID():   alice.Public().String(),
			release.Public().ID(): release.Public().String(),
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	sig, err := alice.Sign(context.Background(), string(manifest.TypeRoot), payload)
	if err != nil {
		fmt.Println(err)
		return
	}
	envelope := manifest.NewEnvelope(manifest.TypeRoot, payload)
	if err := envelope.Attach(keys.Entry{KeyID: alice.Public().ID(), Sig: sig}); err != nil {
		fmt.Println(err)
		return
	}
	trust, _, err := manifest.Pin(envelope.Marshal(), envelope.PayloadHash(), manifest.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(trust.Root().Fleet, trust.RootVersion(), trust.Repo() == envelope.PayloadHash())
	// Output: acme 1 true
}
