package demo

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

// A payload is a copy of the running executable, filler, and a trailer:
//
//	executable | filler | trailer as JSON | its length, 4 bytes big endian | magic
//
// Loaders of every platform ignore what follows an executable, so the copy runs, and
// reads from its own end which release of the demo's program it is.

const (
	magic      = "shoal-demo-app\x00\x01"
	footerSize = 4 + len(magic)
	maxTrailer = 4 << 10 // a trailer is a line of JSON
)

// Trailer says what a copy of the executable is when it runs as the demo's program.
type Trailer struct {
	App     string `json:"app"`
	Version string `json:"version"`
	Crash   bool   `json:"crash"` // it ends right after its start
}

// errNoTrailer says that a file is not a payload.
var errNoTrailer = errors.New("not a program of the demo")

// writePayload writes a payload of at least size bytes to path: never smaller than the
// executable and the trailer. The filler differs from release to release, as a real
// program's bytes do, and is the same each time one release is made.
func writePayload(path, exe string, t Trailer, size int64) (written int64, err error) {
	src, err := os.Open(exe)
	if err != nil {
		return 0, fmt.Errorf("opening the executable: %w", err)
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return 0, err
	}
	own := info.Size()
	if inner, err := trailerSize(src, own); err == nil {
		own -= inner // a payload made from a payload: leave its trailer behind
	} else if !errors.Is(err, errNoTrailer) {
		return 0, err
	}
	tail, err := t.marshal()
	if err != nil {
		return 0, err
	}
	dst, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return 0, err
	}
	defer func() {
		if cerr := dst.Close(); err == nil {
			err = cerr
		}
	}()
	filler := max(0, size-own-int64(len(tail)))
	n1, err := io.Copy(dst, io.LimitReader(src, own))
	if err != nil {
		return 0, fmt.Errorf("copying the executable: %w", err)
	}
	var seed [32]byte
	copy(seed[:], t.Version)
	n2, err := io.CopyN(dst, rand.NewChaCha8(seed), filler)
	if err != nil {
		return 0, fmt.Errorf("writing %q: %w", path, err)
	}
	n3, err := dst.Write(tail)
	return n1 + n2 + int64(n3), err
}

func (t Trailer) marshal() ([]byte, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(b)))
	return append(b, magic...), nil
}

// ReadTrailer reads the trailer of the executable at path; an executable without one
// is an error.
func ReadTrailer(path string) (Trailer, error) {
	f, err := os.Open(path)
	if err != nil {
		return Trailer{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Trailer{}, err
	}
	return readTrailer(f, info.Size())
}

func readTrailer(f io.ReaderAt, size int64) (Trailer, error) {
	n, err := trailerSize(f, size)
	if err != nil {
		return Trailer{}, err
	}
	b := make([]byte, n-int64(footerSize))
	if _, err := f.ReadAt(b, size-n); err != nil {
		return Trailer{}, fmt.Errorf("reading the trailer: %w", err)
	}
	var t Trailer
	if err := json.Unmarshal(b, &t); err != nil {
		return Trailer{}, fmt.Errorf("reading the trailer: %w", err)
	}
	return t, nil
}

// trailerSize is the length of the trailer and its footer at the end of f.
func trailerSize(f io.ReaderAt, size int64) (int64, error) {
	if size < int64(footerSize) {
		return 0, errNoTrailer
	}
	footer := make([]byte, footerSize)
	if _, err := f.ReadAt(footer, size-int64(footerSize)); err != nil {
		return 0, fmt.Errorf("reading the end of the program: %w", err)
	}
	n := int64(binary.BigEndian.Uint32(footer))
	if !bytes.Equal(footer[4:], []byte(magic)) || n > maxTrailer || n+int64(footerSize) > size {
		return 0, errNoTrailer
	}
	return n + int64(footerSize), nil
}
