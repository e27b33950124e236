package tree

import "strings"

// ContentType is the media type that a web server says name has.
func ContentType(name string) string {
	switch {
	case strings.HasSuffix(name, ".json"):
		return "application/json"
	case strings.HasSuffix(name, Torrent):
		return "application/x-bittorrent"
	case strings.HasSuffix(name, Magnet):
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// CacheControl is how long name may be kept (RFC 9111).
func CacheControl(name string) string {
	if strings.HasPrefix(name, "data/") || strings.HasPrefix(name, "info/") {
		return "public, max-age=31536000, immutable" // the name is the hash of the content
	}
	return "no-cache" // may be kept, and must be asked for again
}
