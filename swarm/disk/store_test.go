package disk

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const (
	testPieces      = 5
	testPieceLength = 64 << 10
)

// newContent returns the content of a torrent of testPieces pieces, the last one short.
func newContent() (Layout, []byte) {
	data := make([]byte, (testPieces-1)*testPieceLength+100)
	for i := range data {
		data[i] = byte(i>>16 + i%251 + 1)
	}
	l := Layout{Length: int64(len(data)), PieceLength: testPieceLength}
	for piece := range slices.Chunk(data, testPieceLength) {
		sum := sha1.Sum(piece)
		l.Hashes = append(l.Hashes, sum[:]...)
	}
	return l, data
}

func TestOpenFetch(t *testing.T) {
	l, data := newContent()
	flip := func(at int) []byte {
		b := bytes.Clone(data)
		b[at] ^= 1
		return b
	}
	for _, test := range []struct {
		name string
		had  []byte // nil is no file
		want []bool // which pieces are taken over
	}{
		{"nothing-there", nil, []bool{false, false, false, false, false}},
		{"empty-file", []byte{}, []bool{false, false, false, false, false}},
		{"everything-there", data, []bool{true, true, true, true, true}},
		{"right-name-and-size-wrong-content", make([]byte, len(data)), []bool{false, false, false, false, false}},
		{"one-bit-wrong", flip(testPieceLength), []bool{true, false, true, true, true}},
		{"last-byte-wrong", flip(len(data) - 1), []bool{true, true, true, true, false}},
		{"cut-off", data[:2*testPieceLength+1], []bool{true, true, false, false, false}},
		{"with-more-behind", append(bytes.Clone(data), "more"...), []bool{true, true, true, true, true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			if test.had != nil {
				if err := os.WriteFile(path, test.had, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s, err := OpenFetch(t.Context(), l, path)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var got []bool
			var verified int64
			for n := range test.want {
				_, length, _ := l.Piece(n)
				got = append(got, s.Has(n))
				if test.want[n] {
					verified += length
				}
			}
			if !slices.Equal(got, test.want) || s.Verified() != verified {
				t.Errorf("took over %v (%d bytes), want %v (%d bytes)", got, s.Verified(), test.want, verified)
			}
			fi, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if fi.Size() != int64(len(data)) {
				t.Errorf("the file has %d bytes, want %d", fi.Size(), len(data))
			}
		})
	}
}

func TestSealedStoreIsNotWrittenTo(t *testing.T) {
	l, data := newContent()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenFetch(t.Context(), l, path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.WriteAt(data[:1], 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.WriteAt([]byte("x"), 0); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("writing to a finished file: %v", err)
	}
	if _, err := s.f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("the descriptor of a finished file can be written through")
	}
	if err := os.Rename(path, path+".verified"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if _, err := s.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("a renamed file is no longer served: %v", err)
	}
}

func TestSealNoticesReplacement(t *testing.T) {
	l, data := newContent()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenFetch(t.Context(), l, path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := errors.Join(os.Rename(path, path+".old"), os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s.Seal(); err == nil {
		t.Error("another file at the same path is taken for the one that was downloaded")
	}
}

func TestUnreadablePieceIsNotOffered(t *testing.T) {
	l, data := newContent()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSeed(t.Context(), l, path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Truncate(path, 3*testPieceLength+10); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadAt(make([]byte, 100), 3*testPieceLength); err == nil {
		t.Error("reading behind the end of a file works")
	}
	if s.Has(3) || !s.Has(2) || s.Complete() {
		t.Error("a piece that could not be read is still offered")
	}
}
