// Command dist makes of built programs what is given to people: an archive, a software
// bill of materials, a deb and an rpm for each platform, one OCI image, and the hashes of
// it all, signed where a key is given.
//
// The same programs make the same files, byte for byte, wherever, on whatever machine and
// whenever it runs. What is in a file's name, and every date, is what the programs themselves
// say of the commit they were built from.
//
//	dist [-key FILE] [-packages deb,rpm] DIR
//
// reads DIR/bin, where each program is shoal-OS-ARCH and the example configurations are, and
// writes into DIR. It is run from the root of the tree.
package main

import (
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// build is one program, and what it says of itself.
type build struct {
	path     string
	os, arch string
	arm      string // GOARM; empty but for arm
	info     *buildinfo.BuildInfo
}

// release is what all builds have in common.
type release struct {
	dir     string
	version string // without a v
	commit  string // empty when unknown
	time    time.Time
	builds  []build
}

// Archives hold no earlier date than this one, which zip begins with.
var noDate = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

func main() {
	key := flag.String("key", "", "sign with this OpenSSH private key `FILE`, or the public one of a key in the ssh-agent")
	packages := flag.String("packages", "deb,rpm", "packages to make for Linux")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(64)
	}
	if err := run(os.Stdout, flag.Arg(0), *key, *packages); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, dir, key, packages string) error {
	r, err := open(dir, os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	for _, b := range r.builds {
		if err := errors.Join(r.archive(b), r.sbom(b)); err != nil {
			return err
		}
		for _, format := range strings.FieldsFunc(packages, func(c rune) bool { return c == ',' }) {
			if b.os != "linux" {
				break
			}
			if err := r.pack(b, format); err != nil {
				return err
			}
		}
	}
	if err := r.image(); err != nil {
		return err
	}
	names, err := r.sums()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "shoal %s: %d files in %s\n", r.version, len(names), dir)
	if key == "" {
		fmt.Fprintf(out, "%s is UNSIGNED; DIST_KEY=FILE signs it\n", sumsName)
		return nil
	}
	return r.sign(out, key)
}

// open reads the builds in dir. epoch is SOURCE_DATE_EPOCH, seconds since 1970; when it is
// empty, the commit's date counts.
func open(dir, epoch string) (*release, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "bin", "shoal-*"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("there is no program in %q", filepath.Join(dir, "bin"))
	}
	slices.Sort(paths)
	r := &release{dir: dir, time: noDate}
	for _, path := range paths {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading what %q says of its build: %w", path, err)
		}
		version := "0.0.0-dev"
		if v := info.Main.Version; strings.HasPrefix(v, "v") {
			version = v[1:]
		}
		if r.version == "" {
			r.version, r.commit = version, setting(info, "vcs.revision")
		}
		if version != r.version || setting(info, "vcs.revision") != r.commit {
			return nil, fmt.Errorf("%q is %s of %q, and others are %s of %q", path, version, setting(info, "vcs.revision"), r.version, r.commit)
		}
		if t, err := time.Parse(time.RFC3339, setting(info, "vcs.time")); err == nil {
			r.time = t.UTC()
		}
		r.builds = append(r.builds, build{path, setting(info, "GOOS"), setting(info, "GOARCH"), setting(info, "GOARM"), info})
	}
	if epoch != "" {
		s, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		r.time = time.Unix(s, 0).UTC()
	}
	if r.time.Before(noDate) {
		r.time = noDate
	}
	return r, nil
}

func setting(info *buildinfo.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// name is that of a file which is for one platform.
func (r *release) name(b build, ext string) string {
	return fmt.Sprintf("shoal_%s_%s_%s%s", r.version, b.os, b.arch, ext)
}

// pack has nfpm make a package.
func (r *release) pack(b build, format string) error {
	cmd := exec.Command("go", "tool", "-modfile=internal/tools/nfpm.mod", "nfpm", "package",
		"--config", "deploy/nfpm.yaml", "--packager", format, "--target", filepath.Join(r.dir, r.name(b, "."+format)))
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOOS=", "GOARCH=", "TZ=UTC",
		"SOURCE_DATE_EPOCH="+strconv.FormatInt(r.time.Unix(), 10),
		"SHOAL_PROGRAM="+b.path, "SHOAL_EXAMPLES="+filepath.Dir(b.path), "SHOAL_VERSION="+r.version, "SHOAL_ARCH="+b.arch+b.arm)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making the %s for %s: %w\n%s", format, b.arch, err, out)
	}
	return nil
}
