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

// Valid reports whether path is one of the names above. Their parts are names that lead
// nowhere on any system, so that a tree unpacks to the same files everywhere.
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
		return len(part) == 3 && manifest.ValidName(part[0]) && manifest.ValidVersion(part[1]) && validFile(part[2])
	}
	return false
}

// validFile takes os-arch or os-arch-variant, with the ending of a file for BitTorrent
// clients or without.
func validFile(s string) bool {
	if base, ok := strings.CutSuffix(s, Torrent); ok {
		s = base
	} else if base, ok := strings.CutSuffix(s, Magnet); ok {
		s = base
	}
	return len(s) <= 3*64+2 && validParts(s, 3)
}

// validParts reports whether s can be cut at hyphens into two to most names. A name may
// have hyphens of its own.
func validParts(s string, most int) bool {
	for i := range len(s) {
		if s[i] != '-' || !manifest.ValidName(s[:i]) {
			continue
		}
		if manifest.ValidName(s[i+1:]) || most > 2 && validParts(s[i+1:], most-1) {
			return true
		}
	}
	return false
}
