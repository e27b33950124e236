package publisher

import (
	"path/filepath"
	"slices"
	"strings"

	"shoal/internal/fault"
	"shoal/manifest"
)

// What Go builds for, which is where an agent can run.
var (
	knownOS = []string{"aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "linux",
		"netbsd", "openbsd", "plan9", "solaris", "wasip1", "windows"}
	knownArch = []string{"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle",
		"ppc64", "ppc64le", "riscv64", "s390x", "wasm"}
	// Other words for the same, as build tools put them into file names.
	otherWords = map[string]string{"x86_64": "amd64", "x64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386",
		"macos": "darwin", "osx": "darwin", "win": "windows"}
)

// PlatformOf reads the platform from the end of a file name: acme-linux-amd64,
// acme_2.4.1_Darwin_arm64, acme-windows-amd64.exe.
func PlatformOf(path string) (manifest.Platform, error) {
	name := strings.ToLower(filepath.Base(path))
	for word, ours := range otherWords {
		if strings.Contains(word, "_") {
			name = strings.ReplaceAll(name, word, ours)
		}
	}
	// An extension is whatever stands behind the platform, but not what a version has
	// before it, so they are taken off one by one.
	for base := name; ; {
		words := strings.FieldsFunc(base, func(r rune) bool { return r == '-' || r == '_' })
		if n := len(words); n >= 2 {
			p := manifest.Platform{OS: goWord(words[n-2]), Arch: goWord(words[n-1])}
			if slices.Contains(knownOS, p.OS) && slices.Contains(knownArch, p.Arch) {
				return p, nil
			}
		}
		ext := filepath.Ext(base)
		if ext == "" {
			break
		}
		base = strings.TrimSuffix(base, ext)
	}
	return manifest.Platform{}, fault.New(fault.Usage, "cannot tell the platform of %q from its name", path).
		Line("A name that ends in -linux-amd64 or -windows-amd64.exe would say it.").
		Do("say it: --platform os/arch=%s", path).Fact("file", path)
}

func goWord(word string) string {
	if ours, ok := otherWords[word]; ok {
		return ours
	}
	return word
}

// checkPlatform refuses a platform no agent can be on: most often another word for one.
func checkPlatform(p manifest.Platform) error {
	if slices.Contains(knownOS, p.OS) && slices.Contains(knownArch, p.Arch) {
		return nil
	}
	e := fault.New(fault.Usage, "there is no platform %q", p).
		Line("A platform is os/arch in Go's words, such as linux/amd64, darwin/arm64, windows/amd64.").Fact("platform", p.String())
	meant := manifest.Platform{OS: goWord(p.OS), Arch: goWord(p.Arch), Variant: p.Variant}
	if meant != p && checkPlatform(meant) == nil {
		e.Do("did you mean %s?", meant)
	}
	return e
}

// fileName is the name of an artifact's file for people who download it. It depends on
// the artifact alone, so that the same bytes make the same torrent in every channel.
func fileName(a *manifest.Artifact) string {
	name := a.Name + "-" + a.OS + "-" + a.Arch
	if a.Variant != "" {
		name += "-" + a.Variant
	}
	if a.OS == "windows" && a.Kind == manifest.KindBinary {
		name += ".exe"
	}
	return name
}
