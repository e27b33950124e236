package units

import (
	"fmt"
	"strconv"
	"strings"
)

// Percent is a share of a whole: 0.2 is written "20%".
type Percent float64

// ParsePercent reads a share between 0% and 100%.
func ParsePercent(s string) (Percent, error) {
	digits, ok := strings.CutSuffix(strings.TrimSpace(s), "%")
	f, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !decimal(digits) || f > 100 {
		return 0, fmt.Errorf("%q is not a share: write 0%% to 100%%", s)
	}
	return Percent(f / 100), nil
}

// Share is the value as a number between 0 and 1.
func (p Percent) Share() float64 { return float64(p) }

// Whole is the share in whole percent. A part is cut off, since to stop early is the
// careful side; only nothing is 0.
func (p Percent) Whole() int {
	if p == 0 {
		return 0
	}
	return max(1, int(p.Share()*100+1e-9))
}

// String prints the share as Set reads it.
func (p Percent) String() string { return strconv.FormatFloat(float64(p)*100, 'f', -1, 64) + "%" }

// Set makes a Percent a flag.
func (p *Percent) Set(text string) (err error) {
	*p, err = ParsePercent(text)
	return err
}

// Type names the kind of value in help texts.
func (p *Percent) Type() string { return "PERCENT" }

// MarshalText is String.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is ParsePercent.
func (p *Percent) UnmarshalText(b []byte) error { return p.Set(string(b)) }
