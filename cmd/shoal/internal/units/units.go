// Package units reads and prints the sizes, rates and durations people write on
// command lines and in configuration files.
//
// Sizes take B, kB MB GB TB (powers of 1000) and KiB MiB GiB TiB (powers of 1024); a
// rate is a size per second. Durations take ms s m h and also d y, where a day is
// 24 hours and a year 365 days. What String prints, Set reads back.
package units

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. It is a flag value and a text (un)marshaler.
type Size int64

var sizeUnits = []struct {
	name string
	n    int64
}{
	// Longest names first, so that "MiB" is not read as "B".
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
	{"b", 1}, {"", 1},
}

// ParseSize reads a size such as "48MB", "1.5GiB" or "4096". Units may be written
// in either case.
func ParseSize(s string) (Size, error) {
	number := strings.ToLower(strings.TrimSpace(s))
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(number, u.name)
		if !ok {
			continue
		}
		digits = strings.TrimSpace(digits)
		if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
			if n < 0 || n > math.MaxInt64/u.n {
				return 0, fmt.Errorf("size %q is out of range", s)
			}
			return Size(n * u.n), nil
		}
		f, err := strconv.ParseFloat(digits, 64)
		if err != nil || !decimal(digits) {
			break
		}
		if v := f * float64(u.n); v < math.MaxInt64 {
			return Size(v), nil
		}
		return 0, fmt.Errorf("size %q is out of range", s)
	}
	return 0, fmt.Errorf("%q is not a size: write 5MB, 64KiB or a number of bytes", s)
}

// decimal keeps out what ParseFloat takes beyond digits and a point: signs,
// exponents, hexadecimal, infinities.
func decimal(s string) bool {
	return s != "" && strings.Trim(s, "0123456789.") == ""
}

// Bytes is the size as a plain number.
func (s Size) Bytes() int64 { return int64(s) }

// String prints the size in the largest unit that divides it.
func (s Size) String() string {
	for _, u := range []struct {
		name string
		n    Size
	}{{"TB", 1e12}, {"GB", 1e9}, {"GiB", 1 << 30}, {"MB", 1e6}, {"MiB", 1 << 20}, {"kB", 1e3}, {"KiB", 1 << 10}} {
		if s != 0 && s%u.n == 0 {
			return strconv.FormatInt(int64(s/u.n), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Set makes a Size a flag.
func (s *Size) Set(text string) (err error) {
	*s, err = ParseSize(text)
	return err
}

// Type names the kind of value in help texts.
func (s *Size) Type() string { return "SIZE" }

// MarshalText is String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is ParseSize.
func (s *Size) UnmarshalText(b []byte) error { return s.Set(string(b)) }

// Duration is a time.Duration that also reads days and years.
type Duration time.Duration

var durationUnits = []struct {
	name string
	d    time.Duration
}{
	{"ms", time.Millisecond}, // before "s" and "m"
	{"y", 365 * 24 * time.Hour}, {"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second},
}

var errRange = errors.New("is out of range")

// ParseDuration reads a duration such as "90d", "1h30m", "500ms" or "0".
func ParseDuration(s string) (Duration, error) {
	rest := strings.TrimSpace(s)
	if rest == "0" {
		return 0, nil
	}
	bad := fmt.Errorf("%q is not a duration: write 30s, 15m, 12h, 90d or 2y", s)
	if rest == "" {
		return 0, bad
	}
	var total time.Duration
	for rest != "" {
		i := 0
		for i < len(rest) && '0' <= rest[i] && rest[i] <= '9' {
			i++
		}
		n, err := strconv.ParseInt(rest[:i], 10, 64)
		if errors.Is(err, strconv.ErrRange) {
			return 0, fmt.Errorf("duration %q %w", s, errRange)
		}
		if err != nil {
			return 0, bad
		}
		rest = rest[i:]
		known := false
		for _, u := range durationUnits {
			after, ok := strings.CutPrefix(rest, u.name)
			if !ok {
				continue
			}
			if n > int64(math.MaxInt64/u.d) || total > math.MaxInt64-time.Duration(n)*u.d {
				return 0, fmt.Errorf("duration %q %w", s, errRange)
			}
			total += time.Duration(n) * u.d
			rest, known = after, true
			break
		}
		if !known {
			return 0, bad
		}
	}
	return Duration(total), nil
}

// Duration is the value as the standard library's type.
func (d Duration) Duration() time.Duration { return time.Duration(d) }

// String prints the duration in the units it reads, days at most: "90d", "1h30m".
func (d Duration) String() string {
	if d <= 0 {
		return "0"
	}
	var b strings.Builder
	rest := time.Duration(d)
	for _, u := range []struct {
		name string
		d    time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}} {
		if n := rest / u.d; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			rest -= n * u.d
		}
	}
	if b.Len() == 0 { // below a millisecond
		return "0"
	}
	return b.String()
}

// Set makes a Duration a flag.
func (d *Duration) Set(text string) (err error) {
	*d, err = ParseDuration(text)
	return err
}

// Type names the kind of value in help texts.
func (d *Duration) Type() string { return "DURATION" }

// MarshalText is String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is ParseDuration.
func (d *Duration) UnmarshalText(b []byte) error { return d.Set(string(b)) }
