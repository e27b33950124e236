package origin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// site is a tree on disk, served on a real socket.
type site struct {
	t    *testing.T
	dir  string
	tree *Tree
	*httptest.Server
}

func newSite(t *testing.T, up int64) *site {
	t.Helper()
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "tree")}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.tree, err = Open(s.dir, up); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.tree.Close() })
	s.Server = httptest.NewServer(s.tree)
	t.Cleanup(s.Close)
	return s
}

func (s *site) put(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *site) data(content string) string {
	sum := sha256.Sum256([]byte(content))
	name := "data/" + hex.EncodeToString(sum[:])
	s.put(name, content)
	return name
}

func (s *site) get(name string, header ...string) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodGet, s.URL+"/"+name, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(b)
}

func (s *site) downloads() int {
	s.tree.mu.Lock()
	defer s.tree.mu.Unlock()
	return s.tree.downloads
}

// given is what was counted once no download is under way: a client may have its last
// byte before the server has counted it.
func (s *site) given() int64 {
	for s.downloads() > 0 {
		time.Sleep(time.Millisecond)
	}
	return s.tree.Given()
}

func TestHeaders(t *testing.T) {
	s := newSite(t, 0)
	doc := `{"type":"shoal.manifest.v1"}`
	sum := sha256.Sum256([]byte(doc))
	docTag := `"` + hex.EncodeToString(sum[:]) + `"`
	data := s.data("payload bytes")
	info := "info/" + strings.Repeat("ab", 32)
	for _, name := range []string{"m/acme/stable.json", "b/acme/stable.json", "root/000001.json"} {
		s.put(name, doc)
	}
	s.put(info, "d4:name4:acmee")
	s.put("releases/acme/1.0.0/linux-amd64", "payload bytes")
	s.put("releases/acme/1.0.0/linux-amd64.torrent", "d4:infodee")
	s.put("releases/acme/1.0.0/linux-amd64.magnet", "magnet:?xt=urn:btih:00\n")
	rows := []struct{ name, tag, kind, caching string }{
		{"m/acme/stable.json", docTag, "application/json", "no-cache"},
		{"b/acme/stable.json", docTag, "application/json", "no-cache"},
		{"root/000001.json", docTag, "application/json", "no-cache"},
		{data, `"` + strings.TrimPrefix(data, "data/") + `"`, "application/octet-stream", "public, max-age=31536000, immutable"},
		{info, `"` + strings.TrimPrefix(info, "info/") + `"`, "application/octet-stream", "public, max-age=31536000, immutable"},
		{"releases/acme/1.0.0/linux-amd64", "", "application/octet-stream", "no-cache"},
		{"releases/acme/1.0.0/linux-amd64.torrent", "", "application/x-bittorrent", "no-cache"},
		{"releases/acme/1.0.0/linux-amd64.magnet", "", "text/plain; charset=utf-8", "no-cache"},
	}
	for _, r := range rows {
		t.Run(r.name[:strings.IndexByte(r.name, '/')]+filepath.Ext(r.name), func(t *testing.T) {
			resp, body := s.get(r.name)
			h := resp.Header
			if resp.StatusCode != http.StatusOK || body == "" {
				t.Fatalf("%s, %q", resp.Status, body)
			}
			tag := h.Get("ETag")
			if r.tag != "" && tag != r.tag || !strings.HasPrefix(tag, `"`) {
				t.Errorf("ETag %s, want %s", tag, r.tag)
			}
			if h.Get("Content-Type") != r.kind || h.Get("Cache-Control") != r.caching || h.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("headers %v", h)
			}
			resp, body = s.get(r.name, "If-None-Match", tag)
			if resp.StatusCode != http.StatusNotModified || body != "" {
				t.Errorf("with its ETag: %s and %d bytes, want 304 and none", resp.Status, len(body))
			}
			if resp, _ = s.get(r.name, "If-None-Match", `"other"`); resp.StatusCode != http.StatusOK {
				t.Errorf("with another ETag: %s", resp.Status)
			}
		})
	}
}

// Two releases within one second differ in their ETag alone.
func TestDocumentReplacedWithinOneSecond(t *testing.T) {
	s := newSite(t, 0)
	now := time.Now()
	var tags []string
	for _, content := range []string{`{"a":1}`, `{"a":2}`} {
		path := s.put("m/acme/stable.json", content)
		if err := os.Chtimes(path, now, now); err != nil {
			t.Fatal(err)
		}
		resp, _ := s.get("m/acme/stable.json", "If-Modified-Since", now.Add(time.Hour).UTC().Format(http.TimeFormat))
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Last-Modified") != "" {
			t.Errorf("%s, Last-Modified %q: a date cannot tell documents apart", resp.Status, resp.Header.Get("Last-Modified"))
		}
		tags = append(tags, resp.Header.Get("ETag"))
	}
	if tags[0] == tags[1] {
		t.Errorf("both have the ETag %s", tags[0])
	}
}

func TestRange(t *testing.T) {
	s := newSite(t, 0)
	name := s.data("0123456789")
	tag := `"` + strings.TrimPrefix(name, "data/") + `"`
	resp, body := s.get(name, "Range", "bytes=4-", "If-Range", tag)
	if resp.StatusCode != http.StatusPartialContent || body != "456789" || resp.Header.Get("Content-Range") != "bytes 4-9/10" {
		t.Errorf("%s, %q, %v", resp.Status, body, resp.Header)
	}
	if resp, body = s.get(name, "Range", "bytes=4-", "If-Range", `"other"`); resp.StatusCode != http.StatusOK || body != "0123456789" {
		t.Errorf("another content: %s, %q", resp.Status, body)
	}
	if resp, _ = s.get(name, "Range", "bytes=99-"); resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("beyond the end: %s", resp.Status)
	}
	before := s.given()
	if resp, err := s.Client().Head(s.URL + "/" + name); err != nil || resp.ContentLength != 10 {
		t.Errorf("HEAD: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	if got := s.given(); got != before || before != 16 {
		t.Errorf("counted %d bytes, then %d after a HEAD; want 16", before, got)
	}
}

func TestPathsThatLeadElsewhere(t *testing.T) {
	s := newSite(t, 0)
	s.put("m/acme/stable.json", "{}")
	outside := filepath.Join(filepath.Dir(s.dir), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	hash := strings.Repeat("cd", 32)
	if err := os.MkdirAll(filepath.Join(s.dir, "data", strings.Repeat("ef", 32)), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"data/" + hash: outside, "m/acme/link.json": "../../../secret"} {
		if err := os.Symlink(target, filepath.Join(s.dir, filepath.FromSlash(name))); err != nil {
			t.Skipf("making a symbolic link: %v", err)
		}
	}
	s.put("other.txt", "not of the tree")
	s.put("m/acme/.hidden.json", "not of the tree")
	for _, path := range []string{
		"", "/", "/m", "/m/", "/m/acme", "/m/acme/", "/data/", "/releases/acme/",
		"/../secret", "/m/../../secret", "/m/acme/../../../secret", "//secret", "/m//acme/stable.json",
		"/%2e%2e/secret", "/m/..%2f..%2f..%2fsecret", "/m/acme%5c..%5cstable.json", "/..%5csecret",
		"/m/acme/stable.json/", "/m/acme/stable.json%00", "/m/acme/stable.json%0a", "/M/acme/stable.json",
		"/./m/acme/stable.json", "/m/acme/./stable.json", "/m/ACME/stable.json",
		"/data/" + hash, "/data/" + strings.Repeat("ef", 32), "/data/" + strings.ToUpper(hash), "/m/acme/link.json",
		"/other.txt", "/m/acme/.hidden.json", "/root/1.json", "/root/000000.json", "/con", "/releases/acme/1.0.0/..",
	} {
		t.Run(strings.ReplaceAll(path, "/", "_"), func(t *testing.T) {
			// Written by hand: a client library would clean the path.
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, "GET "+path+" HTTP/1.0\r\n\r\n")
			answer, err := io.ReadAll(io.LimitReader(conn, 1<<20))
			if err != nil {
				t.Fatal(err)
			}
			status, _, _ := bytes.Cut(answer, []byte("\r\n"))
			if !bytes.Contains(status, []byte(" 404 ")) && !bytes.Contains(status, []byte(" 400 ")) && !bytes.Contains(status, []byte(" 500 ")) {
				t.Errorf("answered %q", status)
			}
			if bytes.Contains(answer, []byte("secret")) || bytes.Contains(answer, []byte("not of the tree")) {
				t.Errorf("gave away %q", answer)
			}
		})
	}
}

func TestMethods(t *testing.T) {
	s := newSite(t, 0)
	s.put("m/acme/stable.json", "{}")
	for _, method := range []string{"POST", "PUT", "DELETE", "PROPFIND", "TRACE"} {
		req, err := http.NewRequest(method, s.URL+"/m/acme/stable.json", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %s, Allow %q", method, resp.Status, resp.Header.Get("Allow"))
		}
	}
}

// A reader that stalls is let go, and its slot is free for others. The end of the
// test is that it ends.
func TestStalledReader(t *testing.T) {
	s := newSite(t, 0)
	s.tree.chunkTime = 50 * time.Millisecond
	name := s.data(strings.Repeat("x", 32<<20)) // more than sockets buffer
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /"+name+" HTTP/1.1\r\nHost: x\r\n\r\n")
	for s.downloads() == 0 { // until the download has begun
		if s.tree.Given() > 0 {
			break
		}
	}
	for s.downloads() > 0 { // until it was given up; it was never read
		time.Sleep(time.Millisecond)
	}
	if given := s.tree.Given(); given >= 32<<20 {
		t.Errorf("%d bytes were given to a reader that took none", given)
	}
	if resp, body := s.get(name, "Range", "bytes=0-9"); resp.StatusCode != http.StatusPartialContent || len(body) != 10 {
		t.Errorf("another reader got %s", resp.Status)
	}
}

func TestDownloadsAreLimitedInNumber(t *testing.T) {
	s := newSite(t, 0)
	name := s.data("payload")
	s.put("m/acme/stable.json", "{}")
	here := netip.MustParseAddr("127.0.0.1")
	for range maxDownloadsFrom {
		s.tree.begin(here)
	}
	resp, _ := s.get(name)
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one address has its share, and more: %s", resp.Status)
	}
	s.tree.end(here)
	if resp, _ := s.get(name); resp.StatusCode != http.StatusOK {
		t.Errorf("when one is over there is room for another: %s", resp.Status)
	}
	for i := 0; s.tree.begin(netip.AddrFrom4([4]byte{192, 0, 2, byte(i / maxDownloadsFrom)})); i++ { // everyone elsewhere
	}
	resp, _ = s.get(name)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
	if tag := resp.Header.Get("Cache-Control"); strings.Contains(tag, "immutable") {
		t.Errorf("a refusal may be kept for ever: %q", tag)
	}
	if resp, _ := s.get("m/acme/stable.json"); resp.StatusCode != http.StatusOK {
		t.Errorf("a document waits for downloads: %s", resp.Status)
	}
}

// What is limited is still whole, by each way the body can take.
func TestLimitedDownloadIsWhole(t *testing.T) {
	for _, up := range []int64{0, 64 << 20} {
		s := newSite(t, up)
		content := strings.Repeat("0123456789abcdef", 100_000)
		name := s.data(content)
		if resp, body := s.get(name); resp.StatusCode != http.StatusOK || body != content {
			t.Errorf("up %d: %s, %d of %d bytes", up, resp.Status, len(body), len(content))
		}
		if got := s.given(); got != int64(len(content)) {
			t.Errorf("up %d: counted %d of %d bytes", up, got, len(content))
		}
		w := httptest.NewRecorder() // has no ReadFrom and no deadlines
		s.tree.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/"+name, nil))
		if w.Body.String() != content {
			t.Errorf("up %d: a plain writer got %d of %d bytes", up, w.Body.Len(), len(content))
		}
	}
}
