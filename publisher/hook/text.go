package hook

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"shoal/publisher/fleet"
)

const maxWords = 300 // bytes of one part of a text

// marks format what is around them; each has a look-alike that does not.
const marks = "*~`|\\"

var alike = []rune("∗∼ˋ∣∖")

// Text is an event in one line, for people. A machine's words in it can neither mention
// anybody, nor link, nor format, in chats that know Slack's or Markdown's marks.
func Text(e *fleet.Event) string {
	parts := []string{"shoal: " + e.Kind}
	if e.Host != "" {
		parts = append(parts, "on "+plain(e.Host))
	}
	if e.App != "" {
		parts = append(parts, plain(strings.TrimSpace(e.App+"/"+e.Channel+" "+e.Version)))
	}
	if e.State != "" {
		parts = append(parts, plain(e.State))
	}
	s := strings.Join(parts, " ")
	if e.Text != "" {
		s += ": " + plain(e.Text)
	}
	if e.Code != "" && e.Code != "ok" {
		s += " [" + string(e.Code) + "]" // a word of a-z, 0-9 and _
	}
	return s
}

// plain is s as text that no chat takes for anything else. The zero-width space keeps
// names and addresses from being ones.
func plain(s string) string {
	if len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "") + "…"
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r):
			b.WriteByte(' ')
		case r == '&':
			b.WriteString("&amp;")
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case strings.ContainsRune(marks, r):
			b.WriteRune(alike[strings.IndexRune(marks, r)])
		case r == '@' || r == '#' || r == '_' || r == '[':
			b.WriteRune('\u200b')
			b.WriteRune(r)
		case r == ':':
			b.WriteString(":\u200b")
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
