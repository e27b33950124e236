package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	jsonexp "github.com/go-json-experiment/json"

	"shoal/internal/fault"
	"shoal/manifest/strictjson"
)

// The wire structs mirror the documents member by member. Everything in them is a
// pointer, a slice or a map, so that a member that is missing differs from one that is
// zero. They hold JSON's types only: whether a text is a time or a name is for fields
// to say, in the order the checks have.

// decodeWire reads b, whose signatures have been verified, into w.
func decodeWire(b []byte, w any, doc string) error {
	if err := strictjson.Decode(b, w); err != nil {
		return notJSON(doc, err)
	}
	return nil
}

// notJSON says what a JSON error is about without the decoder's Go types.
func notJSON(doc string, err error) error {
	var bad *strictjson.Error
	if errors.As(err, &bad) {
		return fault.New(fault.Malformed, "%s is not strict JSON: %w", doc, err)
	}
	var kind *jsonexp.SemanticError
	if errors.As(err, &kind) && kind.JSONPointer != "" {
		at := strings.ReplaceAll(strings.TrimPrefix(clip(string(kind.JSONPointer)), "/"), "/", ".")
		wrong := "is of the wrong type"
		if errors.Is(err, jsonexp.ErrUnknownName) {
			wrong = "must not be there"
		}
		f := fault.New(fault.Malformed, "%s: %q %s", doc, at, wrong)
		f.Err = err
		return f
	}
	return fault.New(fault.Malformed, "%s is not a JSON object of its type: %w", doc, err)
}

// writeJSON returns v as the files people review: two spaces, line feeds, and no HTML
// escapes.
func writeJSON(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil // never: the wire structs hold plain values only, and nothing parses from nil
	}
	return b.Bytes()
}

// fields turns the members of one document into values and remembers the first that is
// wrong; after that it does nothing.
type fields struct {
	doc string // what the document is called in messages
	in  string // where the members are: "", or as in "artifacts[2]."
	err error
}

// at returns f for the members of one part of the document; its error goes to f by up.
func (f *fields) at(format string, args ...any) *fields {
	return &fields{doc: f.doc, in: f.in + fmt.Sprintf(format, args...) + ".", err: f.err}
}

func (f *fields) up(part *fields) { f.err = part.err }

func (f *fields) fail(code fault.Code, member, format string, args ...any) {
	if f.err == nil {
		f.err = fault.New(code, "%s: %s%s %s", f.doc, f.in, member, fmt.Sprintf(format, args...)).Fact("member", f.in+member)
	}
}

// present reports whether a member is there, and fails if it is not.
func present[T any](f *fields, member string, v *T) bool {
	if v == nil {
		f.fail(fault.Malformed, member, "is missing")
	}
	return v != nil && f.err == nil
}

func (f *fields) atMost(member string, n, most int) {
	if n > most {
		f.fail(fault.Malformed, member, "has %d entries, at most %d are allowed", n, most)
	}
}

func (f *fields) name(member string, v *string) string {
	if !present(f, member, v) {
		return ""
	}
	if !ValidName(*v) {
		f.fail(fault.Malformed, member, "is %q, which is no name", clip(*v))
	}
	return *v
}

// fileName is a name that becomes a file.
func (f *fields) fileName(member string, v *string) string {
	if !present(f, member, v) {
		return ""
	}
	if !ValidName(*v) {
		f.fail(fault.UnsafePath, member, "is %q, which is no safe file name", clip(*v))
	}
	return *v
}

func (f *fields) version(member string, v *string) string {
	if !present(f, member, v) {
		return ""
	}
	if !ValidVersion(*v) {
		f.fail(fault.Malformed, member, "is %q, which is no version", clip(*v))
	}
	return *v
}

// text reads optional free text.
func (f *fields) text(member string, v *string, most int, lines bool) string {
	if v == nil {
		return ""
	}
	if !validText(*v, most, lines) {
		f.fail(fault.Malformed, member, "is longer than %d bytes or has characters that do not print", most)
	}
	return *v
}

// integer reads an integer that is at least least.
func (f *fields) integer(member string, v *int64, least int64) int64 {
	if !present(f, member, v) {
		return 0
	}
	if *v < least {
		f.fail(fault.Malformed, member, "is %d, at least %d is wanted", *v, least)
	}
	return *v
}

func (f *fields) digest(member string, v *string) (d Digest) {
	if present(f, member, v) && !decodeHex(d[:], *v) {
		f.fail(fault.Malformed, member, "is %q, 64 lower-case hex digits are wanted", clip(*v))
	}
	return d
}

func (f *fields) infohash(member string, v *string) (h Infohash) {
	if present(f, member, v) && !decodeHex(h[:], *v) {
		f.fail(fault.Malformed, member, "is %q, 40 lower-case hex digits are wanted", clip(*v))
	}
	return h
}

func (f *fields) prefixed(member string, v *string) (d Digest) {
	if !present(f, member, v) {
		return d
	}
	d, err := ParsePrefixed(*v)
	if err != nil {
		f.fail(fault.Malformed, member, `is %q, "sha256:" and 64 lower-case hex digits are wanted`, clip(*v))
	}
	return d
}

// timeLayout has one spelling for one second; time.Parse alone would take fractions.
const timeLayout = "2006-01-02T15:04:05Z"

func (f *fields) time(member string, v *string) time.Time {
	if !present(f, member, v) {
		return time.Time{}
	}
	t, err := time.Parse(timeLayout, *v)
	if err != nil || t.Format(timeLayout) != *v {
		f.fail(fault.Malformed, member, "is %q, a time in UTC and whole seconds is wanted, as in 2026-10-12T10:00:00Z", clip(*v))
		return time.Time{}
	}
	return t
}

// duration reads an optional duration.
func (f *fields) duration(member string, v *string) time.Duration {
	if v == nil {
		return 0
	}
	d, ok := parseDuration(*v)
	if !ok {
		f.fail(fault.Malformed, member, "is %q, a whole number of h, m or s is wanted, as in 48h", clip(*v))
	}
	return d
}

// parseDuration reads "0s", or a positive integer and s, m or h.
func parseDuration(s string) (time.Duration, bool) {
	if s == "0s" {
		return 0, true
	}
	if len(s) < 2 || s[0] < '1' || s[0] > '9' {
		return 0, false
	}
	unit, ok := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour}[s[len(s)-1]]
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 63)
	if !ok || err != nil || n > uint64(math.MaxInt64/unit) {
		return 0, false
	}
	return time.Duration(n) * unit, true
}

// formatDuration is the inverse of parseDuration for durations it can read; others come
// out as something it refuses.
func formatDuration(d time.Duration) string {
	switch {
	case d <= 0 || d%time.Second != 0:
		if d == 0 {
			return "0s"
		}
		return d.String()
	case d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	case d%time.Minute == 0:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	}
	return strconv.FormatInt(int64(d/time.Second), 10) + "s"
}

func formatTime(t time.Time) *string { return new(t.UTC().Truncate(time.Second).Format(timeLayout)) }

// optional leaves out a member that has its zero value.
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// knows reports whether documents of the wire type t have the member at a dotted path.
// Arrays and optional members are looked through: "artifacts.payloads.codec".
func knows(t reflect.Type, path string) bool {
	name, rest, more := strings.Cut(path, ".")
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return false
	}
	for f := range t.Fields() {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == name && tag != "" {
			return !more || knows(f.Type, rest)
		}
	}
	return false
}
