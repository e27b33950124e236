package manifest

import (
	"strings"
	"testing"
	"time"
)

func TestValidName(t *testing.T) {
	good := []string{"a", "0", "acme", "acme-2", "a.b", "a_b", "airgap-lts", "sbom.cdx.json", "com", "com10", "lpt", "console", "nul-1", "auxiliary", "x.con", strings.Repeat("a", 64)}
	bad := []string{"", ".", "..", "a..b", ".a", "-a", "_a", "a.", "A", "Acme", "a b", "a/b", `a\b`, "a:b", "a\x00", "ä", "ａ", "a\n",
		"con", "prn", "aux", "nul", "com0", "com1", "com9", "lpt1", "con.txt", "com1.tar.gz", "nul.", strings.Repeat("a", 65)}
	for _, s := range good {
		if !ValidName(s) {
			t.Errorf("%q is refused", s)
		}
	}
	for _, s := range bad {
		if ValidName(s) {
			t.Errorf("%q is taken", s)
		}
	}
}

func TestValidVersion(t *testing.T) {
	for _, s := range []string{"1", "1.8.3", "1.9.0-n7", "2026.11", "v1.0.0+build.5", "R2", strings.Repeat("1", 64)} {
		if !ValidVersion(s) {
			t.Errorf("%q is refused", s)
		}
	}
	// The Kelvin sign is a k in lower case, and no letter of a version.
	for _, s := range []string{"", ".1", "-1", "+1", "1 2", "1/2", "1:2", "1..2", "1.", "NUL", "Con", "com1.2", "\u212a1", "1\u212a", "1\n", strings.Repeat("1", 65)} {
		if ValidVersion(s) {
			t.Errorf("%q is taken", s)
		}
	}
}

func TestTextForms(t *testing.T) {
	if c, err := ParseChannel("acme/stable"); err != nil || c != (Channel{"acme", "stable"}) || c.String() != "acme/stable" {
		t.Errorf("%v, %v", c, err)
	}
	for _, s := range []string{"", "acme", "acme/", "/stable", "acme/stable/x", "Acme/stable", "acme/../stable"} {
		if c, err := ParseChannel(s); err == nil {
			t.Errorf("channel %q is taken for %s", s, c)
		}
	}
	if o, err := ParseOrder("1.42"); err != nil || o != (Order{1, 42}) || o.String() != "1.42" {
		t.Errorf("%v, %v", o, err)
	}
	for _, s := range []string{"", "1", "1.", ".1", "0.1", "1.0", "01.1", "1.01", "+1.1", "1.-1", "1.2.3", "1.9007199254740993", "1 .2"} {
		if o, err := ParseOrder(s); err == nil {
			t.Errorf("order %q is taken for %s", s, o)
		}
	}
	if (Order{1, 42}).Compare(Order{2, 1}) != -1 || (Order{2, 1}).Compare(Order{1, 42}) != 1 || (Order{2, 1}).Compare(Order{2, 1}) != 0 {
		t.Error("the epoch does not come first")
	}
	for _, s := range []string{"linux/amd64", "linux/arm/v7"} {
		if p, err := ParsePlatform(s); err != nil || p.String() != s {
			t.Errorf("platform %q: %v, %v", s, p, err)
		}
	}
	for _, s := range []string{"", "linux", "linux/", "/amd64", "linux/arm/v7/x", "Linux/amd64", "linux/arm/"} {
		if p, err := ParsePlatform(s); err == nil {
			t.Errorf("platform %q is taken for %s", s, p)
		}
	}
	d := Sum([]byte("x"))
	if back, err := ParseDigest(d.String()); err != nil || back != d {
		t.Error(err)
	}
	if back, err := ParsePrefixed(d.Prefixed()); err != nil || back != d {
		t.Error(err)
	}
	for _, s := range []string{"", d.Prefixed(), strings.ToUpper(d.String()), d.String()[1:], d.String() + "0", " " + d.String()[1:]} {
		if _, err := ParseDigest(s); err == nil {
			t.Errorf("digest %q is taken", s)
		}
	}
	for _, s := range []string{"", d.String(), "SHA256:" + d.String(), "sha256:", "sha256:sha256:" + d.String()} {
		if _, err := ParsePrefixed(s); err == nil {
			t.Errorf("prefixed digest %q is taken", s)
		}
	}
}

func TestDurations(t *testing.T) {
	for s, want := range map[string]time.Duration{"0s": 0, "1s": time.Second, "90m": 90 * time.Minute, "2160h": 2160 * time.Hour, "2562047h": 2562047 * time.Hour} {
		if d, ok := parseDuration(s); !ok || d != want {
			t.Errorf("%q is %s, %t", s, d, ok)
		}
	}
	for _, s := range []string{"", "0", "s", "0h", "00s", "1", "1d", "1y", "1ms", "1h1m", "-1s", "+1s", "1.5h", " 1s", "1 s", "1S", "2562048h", "9223372037s", "18446744073709551617s", "1_0s"} {
		if d, ok := parseDuration(s); ok {
			t.Errorf("%q is taken for %s", s, d)
		}
	}
	for _, d := range []time.Duration{0, time.Second, 61 * time.Second, time.Minute, 90 * time.Minute, 48 * time.Hour} {
		if back, ok := parseDuration(formatDuration(d)); !ok || back != d {
			t.Errorf("%s is written %q", d, formatDuration(d))
		}
	}
	for _, d := range []time.Duration{-time.Second, time.Millisecond, time.Second + 1} {
		if _, ok := parseDuration(formatDuration(d)); ok {
			t.Errorf("%s has a form", d)
		}
	}
}

func TestClip(t *testing.T) {
	long := strings.Repeat("ä", 100)
	if got := clip(long); len(got) > 90 || !strings.HasSuffix(got, "ä...") {
		t.Errorf("got %q", got)
	}
	if clip(strings.Repeat("\x80", 100)) == "" || clip("short") != "short" {
		t.Error("clip loses text")
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "two\nlines": "two lines", "\x1b[31mred": " [31mred", "bad\xff": "bad?", "\u202egpj": " gpj",
		"ääää": "äää", // seven bytes are three letters and a half
	} {
		if got := clean(in, 7); got != want && !(len(in) > 7 && got == want[:7]) {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}
