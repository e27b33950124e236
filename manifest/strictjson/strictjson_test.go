package strictjson

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

func nested(depth int) string {
	return strings.Repeat(`{"a":`, depth-1) + `{}` + strings.Repeat(`}`, depth-1)
}

var good = map[string]string{
	"empty-object":          `{}`,
	"white-space-around":    " \t\r\n{ \"a\" : [ 1 , true ] } \n",
	"largest-integer":       `{"a":9007199254740992,"b":-9007199254740992}`,
	"zero":                  `{"a":0}`,
	"escapes":               `{"a":"\"\\\/\b\f\n\r\tA","b":"😀"}`,
	"beyond-the-bmp":        `{"😀":"😀"}`,
	"same-name-elsewhere":   `{"a":{"a":{"A":1}},"b":[{"a":1},{"a":2}]}`,
	"dash-is-a-difference":  `{"max_age":1,"maxage":2,"max-age":3}`,
	"sixteen-deep":          nested(16),
	"sixteen-deep-in-array": strings.Repeat(`{"a":`, 15) + `[]` + strings.Repeat(`}`, 15),
	"many-names":            `{"a0":0` + manyNames(100) + `}`,
}

var bad = map[string]string{
	"empty":                      ``,
	"white-space-only":           ` `,
	"array":                      `[]`,
	"text":                       `"a"`,
	"byte-order-mark":            "\ufeff{}",
	"trailing-object":            `{}{}`,
	"trailing-byte":              `{} x`,
	"trailing-nul":               "{}\x00",
	"trailing-comma":             `{"a":1,}`,
	"trailing-comma-in-array":    `{"a":[1,]}`,
	"comment":                    `{"a":1/**/}`,
	"form-feed-is-no-space":      "{\f}",
	"duplicate":                  `{"sequence":1,"sequence":99}`,
	"duplicate-by-case":          `{"sequence":1,"SEQUENCE":99}`,
	"duplicate-by-long-s":        `{"sequence":1,"ſequence":99}`,
	"duplicate-by-kelvin":        `{"key":1,"` + "\u212a" + `ey":99}`,
	"duplicate-by-escape":        `{"sequence":1,"\u0073equence":99}`,
	"duplicate-by-escaped-fold":  `{"sequence":1,"\u017fequence":99}`,
	"duplicate-empty-name":       `{"":1,"":2}`,
	"duplicate-among-many":       `{"a0":0` + manyNames(100) + `,"A57":1}`,
	"duplicate-in-nested":        `{"a":[{"b":1,"B":2}]}`,
	"duplicate-greek-final":      `{"Σ":1,"ς":2}`,
	"bad-utf8":                   "{\"a\":\"\xff\"}",
	"bad-utf8-in-name":           "{\"\xc0\xaf\":1}",
	"utf8-surrogate":             "{\"a\":\"\xed\xa0\x80\"}",
	"overlong":                   "{\"a\":\"\xc1\x81\"}",
	"half-surrogate":             `{"a":"\ud83d"}`,
	"half-surrogate-then-escape": `{"a":"\ud83d\u0041"}`,
	"low-surrogate-first":        `{"a":"\ude00\ud83d"}`,
	"half-surrogate-at-end":      `{"a":"\ud83d\u`,
	"control-in-string":          "{\"a\":\"\n\"}",
	"nul-in-string":              "{\"a\":\"\x00\"}",
	"unknown-escape":             `{"a":"\x41"}`,
	"escape-at-end":              `{"a":"\`,
	"short-unicode-escape":       `{"a":"\u12"}`,
	"null":                       `{"a":null}`,
	"null-in-array":              `{"a":[null]}`,
	"capital-literal":            `{"a":True}`,
	"cut-literal":                `{"a":tru}`,
	"not-a-number":               `{"a":NaN}`,
	"fraction":                   `{"a":1.0}`,
	"exponent":                   `{"a":1e3}`,
	"capital-exponent":           `{"a":1E3}`,
	"leading-zero":               `{"a":01}`,
	"plus":                       `{"a":+1}`,
	"minus-only":                 `{"a":-}`,
	"minus-zero":                 `{"a":-0}`,
	"hex":                        `{"a":0x1}`,
	"beyond-2-53":                `{"a":9007199254740993}`,
	"below-minus-2-53":           `{"a":-9007199254740993}`,
	"huge-integer":               `{"a":` + strings.Repeat("9", 400) + `}`,
	"integer-that-wraps":         `{"a":18446744073709551617}`,
	"seventeen-deep":             nested(17),
	"seventeen-deep-in-array":    strings.Repeat(`{"a":`, 16) + `[]` + strings.Repeat(`}`, 16),
	"ten-thousand-deep":          nested(10_000),
	"unclosed":                   `{"a":1`,
	"unclosed-text":              `{"a":"b`,
	"no-value":                   `{"a":}`,
	"no-colon":                   `{"a" 1}`,
	"no-comma":                   `{"a":1 "b":2}`,
	"name-without-quotes":        `{a:1}`,
	"single-quotes":              `{'a':1}`,
	"mismatched-close":           `{"a":[1}`,
}

func manyNames(n int) string {
	var b strings.Builder
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, `,"a%d":%d`, i, i)
	}
	return b.String()
}

func TestCheckAccepts(t *testing.T) {
	for name, doc := range good {
		t.Run(name, func(t *testing.T) {
			if err := Check([]byte(doc)); err != nil {
				t.Errorf("Check = %v", err)
			}
		})
	}
}

func TestCheckRefuses(t *testing.T) {
	for name, doc := range bad {
		t.Run(name, func(t *testing.T) {
			err := Check([]byte(doc))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("Check = %v, want an *Error", err)
			}
			if e.Offset < 0 || e.Offset > len(doc) {
				t.Errorf("offset %d is outside the document", e.Offset)
			}
		})
	}
}

func TestDecodeIsCaseSensitive(t *testing.T) {
	var v struct {
		Sequence int64 `json:"sequence"`
	}
	if err := Decode([]byte(`{"SEQUENCE":99}`), &v); err != nil || v.Sequence != 0 {
		t.Errorf("Decode gave %d, %v; a name in another case is another name", v.Sequence, err)
	}
}

// FuzzCheck holds Check against two other parsers: what it accepts, both read, and as
// the same value; and what it accepts stays accepted when written again.
func FuzzCheck(f *testing.F) {
	for _, doc := range good {
		f.Add([]byte(doc))
	}
	for _, doc := range bad {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if Check(b) != nil {
			return
		}
		var std, exp any
		if err := stdjson.Unmarshal(b, &std); err != nil {
			t.Fatalf("accepted %q, which encoding/json refuses: %v", b, err)
		}
		if err := json.Unmarshal(b, &exp); err != nil {
			t.Fatalf("accepted %q, which go-json-experiment refuses: %v", b, err)
		}
		if !reflect.DeepEqual(std, exp) {
			t.Fatalf("%q is %v to one parser and %v to another", b, std, exp)
		}
		again := rewrite(t, b)
		if err := Check(again); err != nil {
			t.Fatalf("%q was accepted, written again as %q it is not: %v", b, again, err)
		}
	})
}

func rewrite(t *testing.T, b []byte) []byte {
	t.Helper()
	d := stdjson.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // a float64 would be written with an exponent
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	again, err := stdjson.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func BenchmarkCheck(b *testing.B) {
	doc := []byte(`{"artifacts":[` + strings.Repeat(`{"name":"acme","length":786432,"payloads":[{"kind":"full","codec":"none"}]},`, 5000) + `{}]}`)
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		if err := Check(doc); err != nil {
			b.Fatal(err)
		}
	}
}
