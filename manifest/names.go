package manifest

import (
	"cmp"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"shoal/internal/fault"
)

const (
	maxName    = 64  // bytes of a name or a version
	maxText    = 256 // bytes of one line of free text
	maxNotes   = 4096
	maxInteger = 1 << 53 // largest integer every JSON reader keeps exactly
)

// Channel is a named line of releases of one app. As text it is "app/channel".
type Channel struct{ App, Name string }

// ParseChannel reads "app/channel".
func ParseChannel(s string) (Channel, error) {
	app, name, ok := strings.Cut(s, "/")
	if !ok || !ValidName(app) || !ValidName(name) {
		return Channel{}, fault.New(fault.Malformed, "%q is not APP/CHANNEL", clip(s)).
			Line("Each is 1 to %d of a-z, 0-9, dot, underscore and hyphen, beginning with a letter or digit.", maxName)
	}
	return Channel{app, name}, nil
}

// String returns "app/channel".
func (c Channel) String() string { return c.App + "/" + c.Name }

// MarshalText returns "app/channel", so that a Channel can be the key of a JSON object.
func (c Channel) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads "app/channel".
func (c *Channel) UnmarshalText(b []byte) (err error) {
	*c, err = ParseChannel(string(b))
	return err
}

func compareChannels(a, b Channel) int {
	return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Name, b.Name))
}

// Order is the place of a manifest in its channel: epoch first, then sequence.
type Order struct{ Epoch, Sequence int64 }

// ParseOrder reads "epoch.sequence".
func ParseOrder(s string) (Order, error) {
	a, b, ok := strings.Cut(s, ".")
	epoch, ok1 := parseCount(a)
	seq, ok2 := parseCount(b)
	if !ok || !ok1 || !ok2 {
		return Order{}, fault.New(fault.Malformed, "%q is not EPOCH.SEQUENCE, as in 1.42", clip(s))
	}
	return Order{epoch, seq}, nil
}

// String returns "epoch.sequence".
func (o Order) String() string { return fmt.Sprintf("%d.%d", o.Epoch, o.Sequence) }

// Compare returns -1, 0 or +1 as o is before, at or after p.
func (o Order) Compare(p Order) int {
	return cmp.Or(cmp.Compare(o.Epoch, p.Epoch), cmp.Compare(o.Sequence, p.Sequence))
}

// parseCount reads a decimal integer from 1 to 2^53 in its only spelling.
func parseCount(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 || n > maxInteger || strconv.FormatInt(n, 10) != s {
		return 0, false
	}
	return n, true
}

// Platform is what an artifact is built for. Variant is empty for none.
type Platform struct{ OS, Arch, Variant string }

// Host is the platform this program was built for.
func Host() Platform { return Platform{OS: runtime.GOOS, Arch: runtime.GOARCH} }

// ParsePlatform reads "os/arch" or "os/arch/variant".
func ParsePlatform(s string) (Platform, error) {
	part := strings.Split(s, "/")
	for _, p := range part {
		if !ValidName(p) {
			part = nil
			break
		}
	}
	switch len(part) {
	case 2:
		return Platform{OS: part[0], Arch: part[1]}, nil
	case 3:
		return Platform{OS: part[0], Arch: part[1], Variant: part[2]}, nil
	}
	return Platform{}, fault.New(fault.Malformed, "%q is not a platform, as in linux/amd64", clip(s))
}

// String returns "os/arch" or "os/arch/variant".
func (p Platform) String() string {
	s := p.OS + "/" + p.Arch
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// MarshalText implements encoding.TextMarshaler.
func (p Platform) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Platform) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePlatform(string(b))
	return err
}

// ValidName reports whether s may name an app, channel, fleet, platform part, artifact,
// attachment, wave or ring: a file name that leads nowhere on any system.
//
// It is 1 to 64 of a-z, 0-9, dot, underscore and hyphen, begins with a letter or digit,
// has no two dots in a row and none at its end (Windows drops that one), and is not a
// Windows device, with or without an extension.
func ValidName(s string) bool {
	if len(s) == 0 || len(s) > maxName || !lowerAlnum(s[0]) ||
		strings.Contains(s, "..") || s[len(s)-1] == '.' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !lowerAlnum(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return !windowsDevice(s)
}

// ValidVersion reports whether s may be the version of a release: 1 to 64 of letters,
// digits, dot, plus, underscore and hyphen, beginning with a letter or digit. It is the
// name of a directory too, so what [ValidName] says of dots and devices holds for it.
func ValidVersion(s string) bool {
	return ValidName(strings.ReplaceAll(lower(s), "+", "_"))
}

// lower is strings.ToLower for ASCII alone: no other letter becomes one that is allowed.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

func lowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// windowsDevice reports whether Windows would open a device under the lower-case name
// s, whatever directory it is in and whatever extension it has.
func windowsDevice(s string) bool {
	base, _, _ := strings.Cut(s, ".")
	switch base {
	case "con", "prn", "aux", "nul":
		return true
	}
	return len(base) == 4 && (base[:3] == "com" || base[:3] == "lpt") && '0' <= base[3] && base[3] <= '9'
}

// ValidReason reports whether s may be the reason that a beacon or a manifest gives: one
// line of at most 256 bytes that prints as it is.
func ValidReason(s string) bool { return validText(s, maxText, false) }

// validText reports whether s is free text of at most max bytes that a terminal and a
// web page show as it is: no control characters (newline only where lines is set), no
// line separators, and nothing that turns the direction of the text.
func validText(s string, max int, lines bool) bool {
	if len(s) > max || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r == '\n' && lines {
			continue
		}
		if !printable(r) {
			return false
		}
	}
	return true
}

func printable(r rune) bool {
	switch {
	case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
		return false
	}
	return true
}

// clip shortens a string from outside for a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	for i := most; i > most-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i] + "..."
		}
	}
	return s[:most] + "..."
}
