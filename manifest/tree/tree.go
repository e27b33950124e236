// Package tree names the files of the static tree: the one layout that a publisher
// writes, any web server serves, and a bundle carries.
//
// Paths have forward slashes and no leading one. [Valid] is the whole list of what may
// be in a tree; whoever unpacks one takes nothing else.
package tree

import (
	"fmt"
	"strconv"
	"strings"

	"shoal/manifest"
)

// Root is the envelope of root version v, counted from 1.
func Root(v int64) string { return fmt.Sprintf("root/%06d.json", v) }

// Manifest is the envelope of the channel's manifest.
func Manifest(c manifest.Channel) string { return "m/" + c.App + "/" + c.Name + ".json" }

// Beacon is the envelope of the channel's beacon.
func Beacon(c manifest.Channel) string { return "b/" + c.App + "/" + c.Name + ".json" }

// Info is the info dict with the SHA-256 d.
func Info(d manifest.Digest) string { return "info/" + d.String() }

// Data is the payload or attachment with the SHA-256 d.
func Data(d manifest.Digest) string { return "data/" + d.String() }

// The endings of the two files beside a Release, for stock BitTorrent clients.
const (
	Torrent = ".torrent"
	Magnet  = ".magnet"
)

// Release is a release's file under a name for people.
func Release(app, version string, p manifest.Platform) string {
	s := "releases/" + app + "/" + version + "/" + p.OS + "-" + p.Arch
	if p.Variant != "" {
		s += "-" + p.Variant
	}
	return s
}

// Valid reports whether path is one of the names above. A name that would be a device or
// lose its last dot on Windows is none, so that a bundle unpacks to the same files
// everywhere.
func Valid(path string) bool {
	dir, rest, _ := strings.Cut(path, "/")
	switch dir {
	case "root":
		digits, ok := strings.CutSuffix(rest, ".json")
		v, err := strconv.ParseInt(digits, 10, 64)
		return ok && err == nil && v >= 1 && Root(v) == path
	case "m", "b":
		name, ok := strings.CutSuffix(rest, ".json")
		if !ok {
			return false
		}
		_, err := manifest.ParseChannel(name)
		return err == nil
	case "info", "data":
		_, err := manifest.ParseDigest(rest)
		return err == nil
	case "releases":
		part := strings.Split(rest, "/")
		return len(part) == 3 && manifest.ValidName(part[0]) && validVersion(part[1]) && validFile(part[2])
	}
	return false
}

func validVersion(s string) bool {
	return manifest.ValidVersion(s) && manifest.ValidName(strings.ReplaceAll(strings.ToLower(s), "+", "_"))
}

// validFile takes os-arch or os-arch-variant, with the ending of a file for BitTorrent
// clients or without. Each part may have hyphens of its own, and 64 bytes.
func validFile(s string) bool {
	s = strings.TrimSuffix(strings.TrimSuffix(s, Magnet), Torrent)
	if !strings.Contains(strings.Trim(s, "-"), "-") || len(s) > 3*64+2 {
		return false
	}
	for part := range strings.SplitSeq(s, "-") {
		if part != "" && !manifest.ValidName("x"+part) {
			return false
		}
	}
	return manifest.ValidName(s[:min(len(s), 64)]) || manifest.ValidName(s[:min(len(s), 63)])
}
