package publisher_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"shoal/keys"
	"shoal/manifest"
	"shoal/publisher"
)

// A new fleet, and its first release.
func Example() {
	if err := firstRelease(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 1 release key, 2 root keys
	// acme/stable 1.0.0 is sequence 1, signed by release-1@acme
	// linux/amd64 is in releases/acme/1.0.0/linux-amd64
}

func firstRelease(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "shoal-example-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	fleet, err := publisher.Init(ctx, publisher.InitRequest{
		App: "acme", Channels: []string{"stable"},
		KeyDir: filepath.Join(dir, "keys"), ConfigFile: filepath.Join(dir, "publisher.yaml"), Store: filepath.Join(dir, "store"),
	})
	if err != nil {
		return err
	}
	fmt.Printf("%d release key, %d root keys\n", len(fleet.ReleaseKeys), len(fleet.RootKeys))

	build := filepath.Join(dir, "acme-linux-amd64")
	if err := os.WriteFile(build, []byte("a program"), 0o755); err != nil {
		return err
	}
	p, err := publisher.Open(publisher.Config{Store: fleet.Store, App: "acme", FleetKeyFile: fleet.FleetKey})
	if err != nil {
		return err
	}
	release, err := p.Publish(ctx, publisher.PublishRequest{
		Channel: manifest.Channel{App: "acme", Name: "stable"},
		Version: "1.0.0",
		Files:   []publisher.File{{Path: build}},
		Keys: func(ctx context.Context) ([]keys.Signer, error) {
			s, err := keys.Open(ctx, "file:"+fleet.ReleaseKeys[0].Path, nil)
			return []keys.Signer{s}, err
		},
	})
	if err != nil {
		return err
	}
	fmt.Printf("%s %s is sequence %d, signed by %s\n", release.Channel, release.Version, release.Sequence, release.SignedBy[0].Name)
	file := filepath.Join(p.Tree(), "releases", "acme", "1.0.0", "linux-amd64")
	if _, err := os.Stat(file); err != nil {
		return err
	}
	fmt.Println("linux/amd64 is in releases/acme/1.0.0/linux-amd64")
	return nil
}
