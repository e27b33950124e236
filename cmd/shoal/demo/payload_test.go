package demo

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func newTestExe(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shoal")
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAPayloadIsTheExecutableAndSaysWhatItIs(t *testing.T) {
	exe := newTestExe(t, "the executable")
	want := Trailer{App: "acme", Version: "2.0.0", Crash: true}
	dir := t.TempDir()
	for _, size := range []int64{0, 100, 4096} {
		path := filepath.Join(dir, "payload")
		n, err := writePayload(path, exe, want, size)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(b)) != n || n < size || !bytes.HasPrefix(b, []byte("the executable")) {
			t.Errorf("size %d: wrote %d bytes, said %d, beginning %q", size, len(b), n, b[:14])
		}
		if size == 4096 && n != size {
			t.Errorf("size %d: %d bytes, want exactly as many", size, n)
		}
		if got, err := ReadTrailer(path); err != nil || got != want {
			t.Errorf("size %d: trailer %+v, %v; want %+v", size, got, err, want)
		}
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm()&0o100 == 0 {
			t.Errorf("size %d: mode %v, want it executable", size, fi.Mode())
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReleasesDifferAndEachIsTheSameAgain(t *testing.T) {
	exe := newTestExe(t, "exe")
	sums := map[[32]byte]string{}
	for _, r := range []struct{ name, version string }{{"a", "1.0.0"}, {"b", "2.0.0"}, {"c", "1.0.0"}} {
		path := filepath.Join(t.TempDir(), r.name)
		if _, err := writePayload(path, exe, Trailer{App: "acme", Version: r.version}, 1000); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		if other, ok := sums[sum]; ok && other != r.version {
			t.Errorf("%s and %s are the same bytes", other, r.version)
		}
		sums[sum] = r.version
	}
	if len(sums) != 2 {
		t.Errorf("%d different payloads of two releases", len(sums))
	}
}

// A demo started from an installed payload must not grow with each copy.
func TestAPayloadOfAPayloadHasOneTrailer(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	n1, err := writePayload(one, newTestExe(t, "exe"), Trailer{App: "acme", Version: "1.0.0"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	n2, err := writePayload(two, one, Trailer{App: "acme", Version: "2.0.0"}, 0)
	if err != nil || n1 != n2 {
		t.Errorf("lengths %d and %d, %v; want the same", n1, n2, err)
	}
}

func TestWhatIsNoPayloadIsRefused(t *testing.T) {
	for name, content := range map[string]string{
		"empty":           "",
		"short":           "x",
		"plain":           "just an executable of some length, without a trailer at its end",
		"length-too-long": "\x00\x00\xff\xff" + magic,
		"length-of-all":   "\xff\xff\xff\xff" + magic,
	} {
		if tr, err := ReadTrailer(newTestExe(t, content)); !errors.Is(err, errNoTrailer) {
			t.Errorf("%s: %+v, %v; want errNoTrailer", name, tr, err)
		}
	}
}

func FuzzReadTrailer(f *testing.F) {
	good, err := Trailer{App: "acme", Version: "1.0.0"}.marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("\x00\x00\x00\x02{}" + magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, err := readTrailer(bytes.NewReader(b), int64(len(b)))
		if err == nil && tr != (Trailer{}) && !bytes.Contains(b, []byte(magic)) {
			t.Errorf("a trailer %+v of nothing", tr)
		}
	})
}
