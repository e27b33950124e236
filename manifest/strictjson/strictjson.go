// Package strictjson refuses JSON that two readers could understand differently.
//
// Parsers disagree about duplicate names, names that differ in case, bad UTF-8, numbers
// they cannot hold, null, and bytes after the end; a document that one person reviews
// and another program runs must leave no such room. [Check] takes one object and
// nothing after it but white space, in valid UTF-8, no name twice in an object, not
// even in another case, at most [MaxDepth] levels, and numbers that are integers within
// plus or minus [MaxInteger]. There is no null: a member that has no value is left out.
//
// It is one pass. Memory is bounded by the input: what is kept is the names of the
// objects that are open.
package strictjson

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

const (
	// MaxDepth is how deep objects and arrays may nest; the outer object is depth 1.
	MaxDepth = 16
	// MaxInteger is the largest magnitude of a number: up to it every reader, also one
	// that keeps numbers as IEEE 754 doubles, has the same value.
	MaxInteger = 1 << 53
)

// Error says where and why a document was refused.
type Error struct {
	Offset int // in bytes
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("%s at byte %d", e.Reason, e.Offset) }

// Check reports the first thing in b that is not strict JSON as an [*Error]. The caller
// has limited the size of b.
func Check(b []byte) error {
	s := scanner{b: b}
	s.space()
	if s.peek() != '{' {
		return s.fail("not a JSON object")
	}
	if err := s.object(1); err != nil {
		return err
	}
	s.space()
	if s.i < len(b) {
		return s.fail("more after the end of the object")
	}
	return nil
}

// Decode checks b and decodes it into v. Names are matched in their exact case; members
// that v does not have are ignored unless opts say otherwise.
func Decode(b []byte, v any, opts ...json.Options) error {
	if err := Check(b); err != nil {
		return err
	}
	return json.Unmarshal(b, v, opts...)
}

type scanner struct {
	b []byte
	i int
}

func (s *scanner) fail(reason string) error { return &Error{s.i, reason} }

// peek returns the next byte, or 0 at the end; a 0 byte in the input is valid nowhere.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) value(depth int) error {
	switch c := s.peek(); {
	case c == '{':
		return s.object(depth)
	case c == '[':
		return s.array(depth)
	case c == '"':
		return s.text(nil)
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.fail("null or not JSON; a member without a value is left out")
	case c == '-' || '0' <= c && c <= '9':
		return s.integer()
	case s.i >= len(s.b):
		return s.fail("cut short")
	}
	return s.fail("not JSON")
}

func (s *scanner) object(depth int) error {
	if depth > MaxDepth {
		return s.fail(fmt.Sprintf("nested deeper than %d", MaxDepth))
	}
	s.i++
	s.space()
	if s.peek() == '}' {
		s.i++
		return nil
	}
	var seen names
	for {
		if s.peek() != '"' {
			return s.fail("no name where one must be")
		}
		start := s.i
		var name []byte
		if err := s.text(&name); err != nil {
			return err
		}
		if !seen.add(fold(name)) {
			s.i = start
			return s.fail("a name that is there already, or differs from one only in case")
		}
		s.space()
		if s.peek() != ':' {
			return s.fail("no colon after a name")
		}
		s.i++
		s.space()
		if err := s.value(depth + 1); err != nil {
			return err
		}
		more, err := s.next('}')
		if !more {
			return err
		}
	}
}

func (s *scanner) array(depth int) error {
	if depth > MaxDepth {
		return s.fail(fmt.Sprintf("nested deeper than %d", MaxDepth))
	}
	s.i++
	s.space()
	if s.peek() == ']' {
		s.i++
		return nil
	}
	for {
		if err := s.value(depth + 1); err != nil {
			return err
		}
		more, err := s.next(']')
		if !more {
			return err
		}
	}
}

// next steps over a comma, or over the end of an object or array.
func (s *scanner) next(end byte) (more bool, err error) {
	s.space()
	switch s.peek() {
	case ',':
		s.i++
		s.space()
		return true, nil
	case end:
		s.i++
		return false, nil
	}
	return false, s.fail("neither a comma nor the end of an object or array")
}

func (s *scanner) literal(want string) error {
	if !bytes.HasPrefix(s.b[s.i:], []byte(want)) {
		return s.fail("not JSON")
	}
	s.i += len(want)
	return nil
}

// integer takes -?(0|[1-9][0-9]*) without a fraction or exponent. Minus zero is refused:
// as a double it is another value than zero.
func (s *scanner) integer() error {
	start := s.i
	if s.peek() == '-' {
		s.i++
	}
	first := s.i
	for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		s.i++
	}
	digits := s.b[first:s.i]
	if c := s.peek(); c == '.' || c == 'e' || c == 'E' {
		return s.fail("a number that is not an integer")
	}
	s.i, start = start, s.i
	switch {
	case len(digits) == 0, len(digits) > 1 && digits[0] == '0', digits[0] == '0' && first > s.i:
		return s.fail("not a number in its plain form")
	case len(digits) > len("9007199254740992"):
		return s.fail("an integer beyond 2^53")
	}
	if n, err := strconv.ParseUint(string(digits), 10, 64); err != nil || n > MaxInteger {
		return s.fail("an integer beyond 2^53")
	}
	s.i = start
	return nil
}

// text steps over a string and, where name is not nil, appends what it says.
func (s *scanner) text(name *[]byte) error {
	s.i++
	for s.i < len(s.b) {
		c := s.b[s.i]
		switch {
		case c == '"':
			s.i++
			return nil
		case c < ' ':
			return s.fail("a control character in a string")
		case c == '\\':
			r, err := s.escape()
			if err != nil {
				return err
			}
			if name != nil {
				*name = utf8.AppendRune(*name, r)
			}
		case c < utf8.RuneSelf:
			s.i++
			if name != nil {
				*name = append(*name, c)
			}
		default:
			r, size := utf8.DecodeRune(s.b[s.i:])
			if r == utf8.RuneError && size == 1 {
				return s.fail("bytes that are not UTF-8")
			}
			if name != nil {
				*name = append(*name, s.b[s.i:s.i+size]...)
			}
			s.i += size
		}
	}
	return s.fail("cut short")
}

// escape steps over a backslash and what follows, and returns the rune meant. Half of a
// surrogate pair means none.
func (s *scanner) escape() (rune, error) {
	s.i++
	c := s.peek()
	if c == 'u' {
		r, ok := s.hex4(s.i + 1)
		if !ok {
			return 0, s.fail("a \\u escape without four hex digits")
		}
		if !utf16.IsSurrogate(r) {
			s.i += 5
			return r, nil
		}
		if low, ok := s.hex4(s.i + 7); ok && s.b[s.i+5] == '\\' && s.b[s.i+6] == 'u' {
			if pair := utf16.DecodeRune(r, low); pair != unicode.ReplacementChar {
				s.i += 11
				return pair, nil
			}
		}
		return 0, s.fail("half of a surrogate pair")
	}
	const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	at := bytes.IndexByte([]byte(from), c)
	if at < 0 {
		return 0, s.fail("an escape that JSON does not have")
	}
	s.i++
	return rune(to[at]), nil
}

func (s *scanner) hex4(at int) (rune, bool) {
	if at+4 > len(s.b) {
		return 0, false
	}
	var r rune
	for _, c := range s.b[at : at+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// fold maps names that a case-insensitive reader takes for one to the same string: each
// rune becomes the smallest one it folds to, so the long s is an s and the Kelvin sign
// a k, as in encoding/json.
func fold(name []byte) string {
	out := make([]byte, 0, len(name))
	for i := 0; i < len(name); {
		if c := name[i]; c < utf8.RuneSelf {
			if 'a' <= c && c <= 'z' {
				c -= 'a' - 'A'
			}
			out = append(out, c)
			i++
			continue
		}
		r, size := utf8.DecodeRune(name[i:])
		out = utf8.AppendRune(out, smallest(r))
		i += size
	}
	return string(out)
}

func smallest(r rune) rune {
	for {
		next := unicode.SimpleFold(r)
		if next <= r { // around the ring once: next is its least member
			return next
		}
		r = next
	}
}

// names is the set of names of one open object.
type names struct {
	few  []string
	many map[string]struct{}
}

// add reports whether name is new.
func (n *names) add(name string) bool {
	if n.many != nil {
		if _, there := n.many[name]; there {
			return false
		}
		n.many[name] = struct{}{}
		return true
	}
	for _, s := range n.few {
		if s == name {
			return false
		}
	}
	n.few = append(n.few, name)
	if len(n.few) > 16 {
		n.many = make(map[string]struct{}, 4*len(n.few))
		for _, s := range n.few {
			n.many[s] = struct{}{}
		}
	}
	return true
}
