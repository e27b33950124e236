package swarm

import (
	"errors"
	"strconv"
)

// bdecoder reads canonical bencode (BEP 3) and nothing else: one spelling for every
// value, so that two readers cannot disagree about what a signed dict says. It keeps no
// more than slices of its input, and never recurses.
type bdecoder struct {
	b []byte // what is left
}

var errBencode = errors.New("not canonical bencode")

// expect consumes one literal byte.
func (d *bdecoder) expect(c byte) error {
	if len(d.b) == 0 || d.b[0] != c {
		return errBencode
	}
	d.b = d.b[1:]
	return nil
}

// digits consumes a decimal number without sign or leading zeros, and its terminator.
func (d *bdecoder) digits(end byte) (int64, error) {
	n := 0
	for n < len(d.b) && n < 19 && d.b[n] >= '0' && d.b[n] <= '9' {
		n++
	}
	if n == 0 || n == len(d.b) || d.b[n] != end || (d.b[0] == '0' && n > 1) {
		return 0, errBencode
	}
	v, err := strconv.ParseInt(string(d.b[:n]), 10, 64)
	if err != nil {
		return 0, errBencode
	}
	d.b = d.b[n+1:]
	return v, nil
}

// integer reads a non-negative integer; no dict read here has another.
func (d *bdecoder) integer() (int64, error) {
	if err := d.expect('i'); err != nil {
		return 0, err
	}
	return d.digits('e')
}

// bytes reads a byte string.
func (d *bdecoder) bytes() ([]byte, error) {
	n, err := d.digits(':')
	if err != nil || n > int64(len(d.b)) {
		return nil, errBencode
	}
	s := d.b[:n:n]
	d.b = d.b[n:]
	return s, nil
}

// dict reads a dict whose keys ascend strictly, and is whole: nothing may follow it.
// value is called for each key and must consume that key's value.
func (d *bdecoder) dict(value func(key string) error) error {
	if err := d.expect('d'); err != nil {
		return err
	}
	last, first := "", true
	for {
		if len(d.b) > 0 && d.b[0] == 'e' {
			d.b = d.b[1:]
			if len(d.b) != 0 {
				return errBencode
			}
			return nil
		}
		k, err := d.bytes()
		if err != nil {
			return err
		}
		key := string(k)
		if !first && key <= last {
			return errBencode
		}
		last, first = key, false
		if err := value(key); err != nil {
			return err
		}
	}
}

// appendString appends s as a bencoded byte string.
func appendString[T string | []byte](b []byte, s T) []byte {
	b = strconv.AppendInt(b, int64(len(s)), 10)
	b = append(b, ':')
	return append(b, s...)
}

// appendInt appends v as a bencoded integer.
func appendInt(b []byte, v int64) []byte {
	b = append(b, 'i')
	b = strconv.AppendInt(b, v, 10)
	return append(b, 'e')
}
