package mirror

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/mirror/bucket"
)

const (
	gateway = "github.com/versity/versitygw/cmd/versitygw"
	access  = "an-access-key"
	secret  = "a-secret-of-some-length"
)

// store is an S3-compatible server that keeps objects as files.
type store struct {
	t    *testing.T
	url  string
	root string
}

// newStore builds the server, from the module cache, and starts it.
func newStore(t *testing.T) *store {
	t.Helper()
	if os.Getenv("SHOAL_LONG") == "" {
		t.Skip("builds an S3-compatible server; make test-long runs it")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "gateway")
	build := exec.Command("go", "build", "-modfile=../../internal/tools/s3.mod", "-o", program, gateway)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("the S3-compatible server cannot be built here: %v\n%s", err, out)
	}
	s := &store{t: t, root: filepath.Join(dir, "objects")}
	if err := os.Mkdir(s.root, 0o755); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	port := freePort(t)
	cmd := exec.Command(program, "--access", access, "--secret", secret, "--port", port, "--quiet", "posix", s.root)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	s.url = "http://" + port
	deadline := time.Now().Add(time.Minute)
	for {
		res, err := http.Get(s.url)
		if err == nil {
			res.Body.Close()
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not answer: %v\n%s", err, said.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// bucket makes a bucket, and returns a place in it and where its files are.
func (s *store) bucket(name string) (*bucket.Bucket, Dir) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Join(s.root, name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return s.open(name), Dir(filepath.Join(s.root, name, "acme", "v1"))
}

func (s *store) open(name string) *bucket.Bucket {
	s.t.Helper()
	b, err := bucket.Open("s3://"+name+"/acme/v1", bucket.Config{Endpoint: s.url, AccessKey: access, SecretKey: secret})
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// What is promised of a directory holds of a bucket, in a store that other people made.
func TestLongBucket(t *testing.T) {
	s := newStore(t)
	t.Run("again-and-prune", func(t *testing.T) {
		p := newPress(t)
		to, seen := s.bucket("again")
		p.Put(tree.Root(2), p.Rotate())
		p.release(1, strings.Repeat("one", 10<<20)) // in parts
		if r := p.mustPush(to, Options{}); r.Written != 7 || r.Mirror != "s3://again/acme/v1" {
			t.Errorf("%+v", r)
		}
		before := files(t, seen)
		if r := p.mustPush(s.open("again"), Options{Verify: true, Prune: true}); r.Written != 0 || r.Kept != 7 || r.Removed != 0 {
			t.Errorf("again: %+v", r)
		}
		if diff := cmp.Diff(before, files(t, seen)); diff != "" {
			t.Error(diff)
		}
		p.release(2, "two")
		p.mustPush(to, Options{})
		if r := p.mustPush(to, Options{Prune: true}); r.Removed != 4 || r.Written != 0 {
			t.Errorf("pruned: %+v", r)
		}
		if got := whole(t, seen, p.Pin()); got != 2 {
			t.Errorf("the bucket offers %d", got)
		}
		p.release(1, "one")
		if _, err := p.push(to, Options{}); fault.CodeOf(err) != fault.Rollback {
			t.Errorf("led back: %v", err)
		}
	})
	t.Run("verify", func(t *testing.T) {
		p := newPress(t)
		to, seen := s.bucket("verify")
		p.release(1, "one")
		p.mustPush(to, Options{})
		data := tree.Data(manifest.Sum([]byte("one")))
		if err := os.WriteFile(seen.path(data), []byte("0ne"), 0o644); err != nil {
			t.Fatal(err)
		}
		if r := p.mustPush(to, Options{Verify: true}); r.Written != 1 || files(t, seen)[data] != "one" {
			t.Errorf("%+v", r)
		}
	})
	t.Run("dies-at-every-step", func(t *testing.T) {
		n := 0
		diesAtEveryStep(t, func() (Place, Dir) {
			n++
			return s.bucket(fmt.Sprintf("step%d", n))
		})
	})
	// Of two pushes at once the one that knows less ends, and what it knows is not offered
	// again; likewise in a bucket that was empty when both began.
	for _, first := range []string{"older", "empty"} {
		t.Run("two-at-once-"+first, func(t *testing.T) {
			p := newPress(t)
			late, seen := s.bucket("both" + first)
			p.release(1, "one")
			if first == "older" {
				p.mustPush(late, Options{})
				p.release(2, "two")
			}
			slow := &overtaken{Place: late, before: tree.Manifest(stable), do: func() {
				p.release(3, "three")
				p.mustPush(s.open("both"+first), Options{})
			}}
			if _, err := p.push(slow, Options{}); fault.CodeOf(err) != fault.Locked {
				t.Errorf("%v, want %s", err, fault.Locked)
			}
			if got := whole(t, seen, p.Pin()); got != 3 {
				t.Errorf("the bucket offers %d", got)
			}
		})
	}
	t.Run("who-may", func(t *testing.T) {
		p := newPress(t)
		to, _ := s.bucket("private")
		p.release(1, "one")
		p.mustPush(to, Options{})
		if to.Public(t.Context()) {
			t.Error("a bucket without a policy is said to be public")
		}
		admin, err := minio.New(strings.TrimPrefix(s.url, "http://"), &minio.Options{Creds: credentials.NewStaticV4(access, secret, "")})
		if err == nil {
			err = admin.SetBucketPolicy(t.Context(), "private", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
				"Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::private/*"}]}`)
		}
		if err != nil {
			t.Fatal(err)
		}
		if !to.Public(t.Context()) {
			t.Error("a bucket that everybody can read is not said to be public")
		}
		res, err := http.Get(s.url + "/private/acme/v1/" + tree.Manifest(stable))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/json" || res.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("machines get %s %v", res.Status, res.Header)
		}
		wrong, err := bucket.Open("s3://private/acme/v1", bucket.Config{Endpoint: s.url, AccessKey: access, SecretKey: "wrong"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.push(wrong, Options{}); fault.CodeOf(err) != fault.Permission {
			t.Errorf("a wrong secret: %v", err)
		}
		if _, err := p.push(s.open("missing"), Options{}); fault.CodeOf(err) != fault.NotFound {
			t.Errorf("no bucket: %v", err)
		}
	})
}

// overtaken is a place where something else happens before a file is written.
type overtaken struct {
	Place
	before string
	do     func()
}

func (o *overtaken) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	if name == o.before && o.do != nil {
		do := o.do
		o.do = nil
		do()
	}
	return o.Place.Put(ctx, name, r, size)
}

// freePort is one that nobody listens on, and none of those that connections are made from:
// another process may have such a one by the time it is used.
func freePort(t *testing.T) string {
	t.Helper()
	for port := 10_000 + os.Getpid()*41%20_000; ; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
		if port > 31_000 {
			t.Fatal(err)
		}
	}
}
