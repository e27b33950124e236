package units

import (
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	rows := []struct {
		in   string
		want int64
	}{
		{"0", 0}, {"4096", 4096}, {"7B", 7}, {"5kB", 5e3}, {"48MB", 48e6}, {"2GB", 2e9}, {"1TB", 1e12},
		{"64KiB", 64 << 10}, {"1MiB", 1 << 20}, {"3GiB", 3 << 30}, {"1.5MB", 1.5e6}, {"1.5KiB", 1536}, {" 10 mb ", 10e6},
	}
	for _, r := range rows {
		if got, err := ParseSize(r.in); err != nil || got.Bytes() != r.want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", r.in, got, err, r.want)
		}
	}
	for _, bad := range []string{"", "MB", "-1", "-1MB", "1e3", "0x10", "inf", "nan", "5 potatoes", "5M", "1.2.3MB", "9223372036854775807kB", "99999999999999999999", "1_000"} {
		if got, err := ParseSize(bad); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", bad, got)
		}
	}
}

func TestParseDuration(t *testing.T) {
	day := 24 * time.Hour
	rows := []struct {
		in   string
		want time.Duration
	}{
		{"0", 0}, {"500ms", 500 * time.Millisecond}, {"30s", 30 * time.Second}, {"15m", 15 * time.Minute}, {"12h", 12 * time.Hour},
		{"90d", 90 * day}, {"2y", 730 * day}, {"1h30m", 90 * time.Minute}, {"1d12h", 36 * time.Hour},
	}
	for _, r := range rows {
		if got, err := ParseDuration(r.in); err != nil || got.Duration() != r.want {
			t.Errorf("ParseDuration(%q) = %s, %v; want %s", r.in, got.Duration(), err, r.want)
		}
	}
	for _, bad := range []string{"", "s", "5", "-1s", "1.5h", "1w", "1 h", "1us", "99999999999999999999s", "300y", "292y292y", "1h h"} {
		if got, err := ParseDuration(bad); err == nil {
			t.Errorf("ParseDuration(%q) = %s, want an error", bad, got.Duration())
		}
	}
}

func TestParsePercent(t *testing.T) {
	for in, want := range map[string]float64{"0%": 0, "20%": 0.2, "100%": 1, "2.5%": 0.025} {
		if got, err := ParsePercent(in); err != nil || got.Share() != want {
			t.Errorf("ParsePercent(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "%", "20", "101%", "-1%", "0.2", "1e1%", "nan%"} {
		if got, err := ParsePercent(bad); err == nil {
			t.Errorf("ParsePercent(%q) = %v, want an error", bad, got)
		}
	}
}

// What String prints, Set reads back: "config show" prints a file one can use.
func FuzzStringsReadBack(f *testing.F) {
	for _, s := range []string{"48MB", "1.5GiB", "90d", "1h30m", "500ms", "20%", "0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if size, err := ParseSize(s); err == nil {
			if again, err := ParseSize(size.String()); err != nil || again != size {
				t.Errorf("size %q prints as %q, which reads as %d, %v", s, size, again, err)
			}
		}
		if d, err := ParseDuration(s); err == nil {
			if again, err := ParseDuration(d.String()); err != nil || again != d {
				t.Errorf("duration %q prints as %q, which reads as %d, %v", s, d, again, err)
			}
		}
		if p, err := ParsePercent(s); err == nil {
			if _, err := ParsePercent(p.String()); err != nil {
				t.Errorf("share %q prints as %q: %v", s, p, err)
			}
		}
	})
}
