package tracker

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"testing"
)

// decodeDict reads a bencoded dictionary by hand, and insists on what BEP 3 does:
// sorted, unique keys, no leading zeros, nothing after the end.
func decodeDict(t *testing.T, b []byte) map[string]any {
	t.Helper()
	v, rest, err := decode(b)
	if err != nil {
		t.Fatalf("decoding %q: %v", b, err)
	}
	d, ok := v.(map[string]any)
	if !ok || len(rest) > 0 {
		t.Fatalf("%q is not one dictionary", b)
	}
	return d
}

func decode(b []byte) (v any, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, io.ErrUnexpectedEOF
	}
	switch c := b[0]; {
	case c == 'i':
		digits, rest, ok := bytes.Cut(b[1:], []byte("e"))
		n, err := strconv.Atoi(string(digits))
		if !ok || err != nil || strconv.Itoa(n) != string(digits) {
			return nil, nil, fmt.Errorf("bad integer %q", digits)
		}
		return n, rest, nil
	case c == 'l':
		list := []any{}
		for b = b[1:]; len(b) > 0 && b[0] != 'e'; {
			if v, b, err = decode(b); err != nil {
				return nil, nil, err
			}
			list = append(list, v)
		}
		if len(b) == 0 {
			return nil, nil, io.ErrUnexpectedEOF
		}
		return list, b[1:], nil
	case c == 'd':
		dict, last, first := map[string]any{}, "", true
		for b = b[1:]; len(b) > 0 && b[0] != 'e'; {
			if v, b, err = decode(b); err != nil {
				return nil, nil, err
			}
			key, ok := v.(string)
			if !ok || !first && key <= last {
				return nil, nil, fmt.Errorf("key %v after %q", v, last)
			}
			if dict[key], b, err = decode(b); err != nil {
				return nil, nil, err
			}
			last, first = key, false
		}
		if len(b) == 0 {
			return nil, nil, io.ErrUnexpectedEOF
		}
		return dict, b[1:], nil
	default:
		digits, rest, ok := bytes.Cut(b, []byte(":"))
		n, err := strconv.Atoi(string(digits))
		if !ok || err != nil || n < 0 || n > len(rest) || strconv.Itoa(n) != string(digits) {
			return nil, nil, fmt.Errorf("bad string length %q", digits)
		}
		return string(rest[:n]), rest[n:], nil
	}
}

func readAll(t *testing.T, r io.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
