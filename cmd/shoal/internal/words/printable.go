package words

import (
	"fmt"
	"strings"
	"unicode"
)

// Printable replaces what could drive a terminal: control characters other than
// newline and tab, and the marks that reorder text. Messages quote what comes from
// outside, and this holds where one forgets to.
func Printable(s string) string {
	unsafe := func(r rune) bool {
		return r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r))
	}
	if strings.IndexFunc(s, unsafe) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unsafe(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
