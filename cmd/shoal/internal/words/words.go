// Package words writes values as people read them in a line of output: times, sizes,
// paths to copy, and text from outside, which must not drive the terminal.
package words

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// OrUnknown is a version, or the words for one that nobody told.
func OrUnknown(version string) string {
	if version == "" {
		return "an unknown version"
	}
	return version
}

// Roughly is a duration as people say it.
func Roughly(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

// Moment is a time as people read it, in this machine's zone.
func Moment(t time.Time) string { return t.Local().Format("Mon 2006-01-02 15:04 MST") }

// Left says how far t is from now: so much left, or expired so long ago.
func Left(t, now time.Time) string {
	if !now.Before(t) {
		return "EXPIRED " + Roughly(now.Sub(t)) + " ago"
	}
	return Roughly(t.Sub(now)) + " left"
}

// OneLine is what a machine said, fit for a line of a terminal.
func OneLine(s string) string {
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(Printable(s))
}

// Shell quotes a path for a command line that people copy.
func Shell(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,+@%~\\") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Size is a number of bytes as people read it; less than none is none.
func Size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// Short is the beginning of a hash, for a line that people read.
func Short(hex string) string { return hex[:min(len(hex), 12)] }
