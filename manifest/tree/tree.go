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

// Root is the envelope of root version v.
func Root(v int64) string { return fmt.Sprintf("root/%06d.json", v) }

// Manifest is the envelope of the channel's manifest.
func Manifest(c manifest.Channel) string { return "m/" + c.App + "/" + c.Name + ".json" }

// Beacon is the envelope of the channel's beacon.
func Beacon(c manifest.Channel) string { return "b/" + c.App + "/" + c.Name + ".json" }

// Info is the info dict with the SHA-256 d.
func Info(d manifest.Digest) string { return "info/" + d.String() }

// Data is the payload or attachment with the SHA-256 d.
func Data(d manifest.Digest) string { return "data/" + d.String() }

// Endings of the two files beside a Release, for stock BitTorrent clients.
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

// Valid reports whether path is one of the names above.
func Valid(path string) bool {
	part := strings.Split(path, "/")
	switch {
	case part[0] == "root" && len(part) == 2:
		s, ok := strings.CutSuffix(part[1], ".json")
		v, err := strconv.ParseInt(s, 10, 64)
		return ok && err == nil && v >= 1 && Root(v) == path
	case (part[0] == "m" || part[0] == "b") && len(part) == 3:
		s, ok := strings.CutSuffix(part[2], ".json")
		return ok && manifest.ValidName(part[1]) && manifest.ValidName(s)
	case (part[0] == "info" || part[0] == "data") && len(part) == 2:
		_, err := manifest.ParseDigest(part[1])
		return err == nil
	case part[0] == "releases" && len(part) == 4:
		return manifest.ValidName(part[1]) && manifest.ValidVersion(part[2]) && validVersionDir(part[2]) && validFile(part[3])
	}
	return false
}

// validVersionDir keeps versions that are fine as labels from being odd as directories:
// a Windows device, or a dot at the end.
func validVersionDir(s string) bool {
	return manifest.ValidName(strings.ReplaceAll(strings.ToLower(s), "+", "_"))
}

func validFile(s string) bool {
	s = strings.TrimSuffix(strings.TrimSuffix(s, Torrent), Magnet)
	goos, arch, ok := strings.Cut(s, "-")
	return ok && len(s) <= 3*64+2 && manifest.ValidName(goos) && manifest.ValidName(clipName(arch))
}

func clipName(s string) string { return s }
