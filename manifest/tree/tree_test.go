package tree_test

import (
	"strings"
	"testing"

	"shoal/manifest"
	"shoal/manifest/tree"
)

var digest = manifest.Sum([]byte("x"))

func TestNames(t *testing.T) {
	ch := manifest.Channel{App: "acme", Name: "stable"}
	linux := manifest.Platform{OS: "linux", Arch: "amd64"}
	arm := manifest.Platform{OS: "linux", Arch: "arm", Variant: "v7"}
	for got, want := range map[string]string{
		tree.Root(1):                         "root/000001.json",
		tree.Root(1234567):                   "root/1234567.json",
		tree.Manifest(ch):                    "m/acme/stable.json",
		tree.Beacon(ch):                      "b/acme/stable.json",
		tree.Info(digest):                    "info/" + digest.String(),
		tree.Data(digest):                    "data/" + digest.String(),
		tree.Release("acme", "1.8.3", linux): "releases/acme/1.8.3/linux-amd64",
		tree.Release("acme", "1.0+b.5", arm): "releases/acme/1.0+b.5/linux-arm-v7",
		tree.Release("acme", "1.8.3", linux) + tree.Torrent: "releases/acme/1.8.3/linux-amd64.torrent",
		tree.Release("acme", "1.8.3", arm) + tree.Magnet:    "releases/acme/1.8.3/linux-arm-v7.magnet",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if !tree.Valid(got) {
			t.Errorf("%q is not valid", got)
		}
	}
	hyphens := tree.Release("a-b", "1", manifest.Platform{OS: "my-os", Arch: "x86-64", Variant: "gnu-2"})
	if !tree.Valid(hyphens) {
		t.Errorf("%q is not valid", hyphens)
	}
}

func TestInvalid(t *testing.T) {
	for _, path := range []string{
		"", "/", ".", "..", "root", "root/", "root/1.json", "root/000000.json", "root/-00001.json", "root/000001.json/", "root/000001", "root/0000001.json", "root/+00001.json",
		"/root/000001.json", "./root/000001.json", "x/../root/000001.json", "root//000001.json", `root\000001.json`,
		"m/acme/stable", "m/acme.json", "m/acme/stable/x.json", "m/../stable.json", "m/acme/../../x.json", "m/acme/.json", "m/con/stable.json", "m/acme/nul.json", "m/ACME/stable.json", "m/acme/stable.json ", "m//stable.json",
		"b/acme/..json",
		"info/" + digest.String() + ".json", "info/" + digest.Prefixed(), "info/" + strings.ToUpper(digest.String()), "info/x", "data/", "data/" + digest.String() + "/x", "data/../" + digest.String(),
		"releases/acme/1.0", "releases/acme/1.0/linux", "releases/acme/1.0/linux-", "releases/acme/1.0/-amd64", "releases/acme/../linux-amd64", "releases/acme/1..2/linux-amd64", "releases/acme/NUL/linux-amd64",
		"releases/acme/1.0/linux-amd64/x", "releases/acme/1.0/con-amd64", "releases/acme/1.0/linux-nul", "releases/acme/1.0/Linux-amd64", "releases/acme/1.0/a..b-c",
		"other/x",
	} {
		if tree.Valid(path) {
			t.Errorf("%q is valid", path)
		}
	}
}

// FuzzValid: what is valid leads nowhere.
func FuzzValid(f *testing.F) {
	f.Add("m/acme/stable.json")
	f.Add("releases/acme/1.0/linux-amd64.torrent")
	f.Fuzz(func(t *testing.T, path string) {
		if !tree.Valid(path) {
			return
		}
		if strings.ContainsAny(path, "\\:\x00") || strings.HasPrefix(path, "/") || len(path) > 400 {
			t.Fatalf("%q is valid", path)
		}
		for part := range strings.SplitSeq(path, "/") {
			if part == "" || part == "." || part == ".." || strings.HasSuffix(part, ".") || part[0] == '-' {
				t.Fatalf("%q has the part %q", path, part)
			}
		}
	})
}
