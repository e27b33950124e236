package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/internal/fault"
	"shoal/manifest/tree"
)

const secret = "a-secret-and-a-session-token"

func testBucket(t *testing.T, h http.HandlerFunc) *Bucket {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	b, err := Open("s3://updates/acme", Config{Endpoint: s.URL, AccessKey: "an-access-key", SecretKey: secret, SessionToken: secret})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What a store answers has a code, and whatever it repeats, no credential is told.
func TestAnswers(t *testing.T) {
	rows := []struct {
		name   string
		status int
		code   string
		want   fault.Code
	}{
		{"no-bucket", 404, "NoSuchBucket", fault.NotFound},
		{"wrong-key", 403, "InvalidAccessKeyId", fault.Permission},
		{"wrong-secret", 403, "SignatureDoesNotMatch", fault.Permission},
		{"not-allowed", 403, "AccessDenied", fault.Permission},
		{"clock", 403, "RequestTimeTooSkewed", fault.Permission},
		{"somebody-was-quicker", 412, "PreconditionFailed", fault.Locked},
		{"somebody-at-the-same-time", 409, "ConditionalRequestConflict", fault.Locked},
		{"full", 507, "InsufficientStorage", fault.NoSpace},
		{"ill", 501, "NotImplemented", fault.Unreachable},
		{"nonsense", 400, "MalformedXML", fault.IO},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := testBucket(t, func(w http.ResponseWriter, req *http.Request) {
				io.Copy(io.Discard, req.Body)
				w.WriteHeader(r.status)
				fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s %s</Message></Error>", r.code, req.Header.Get("X-Amz-Security-Token"), req.Header)
			})
			b.documents = map[string]string{}
			_, lockErr := b.Lock(t.Context())
			putErr := b.Put(t.Context(), tree.Root(1), strings.NewReader("one"), 3)
			for what, err := range map[string]error{"Lock": lockErr, "Put": putErr} {
				if fault.CodeOf(err) != r.want {
					t.Errorf("%s: %v, want %s", what, err, r.want)
				}
				if told := fmt.Sprintf("%v %+v", err, err); strings.Contains(told, secret) || strings.Contains(told, "Credential=") {
					t.Errorf("%s tells a credential: %s", what, told)
				}
			}
		})
	}
	t.Run("silence", func(t *testing.T) {
		s := httptest.NewServer(http.NotFoundHandler())
		s.Close()
		b, err := Open("s3://updates", Config{Endpoint: s.URL, AccessKey: "a", SecretKey: secret})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Lock(t.Context()); fault.CodeOf(err) != fault.Unreachable || strings.Contains(err.Error(), secret) {
			t.Errorf("%v", err)
		}
	})
	t.Run("no-object", func(t *testing.T) {
		b := testBucket(t, http.NotFound)
		if _, _, err := b.Open(t.Context(), tree.Root(1)); !isNotExist(err) {
			t.Errorf("%v", err)
		}
	})
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// A document is written if it is what it was, and to a store without conditions all the
// same; a payload, whose name is its hash, without any.
func TestPutHasConditions(t *testing.T) {
	var sent []string
	refuse := false
	b := testBucket(t, func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		sent = append(sent, strings.TrimSpace(req.Header.Get("If-Match")+" "+req.Header.Get("If-None-Match")))
		if refuse && sent[len(sent)-1] != "" {
			w.WriteHeader(http.StatusNotImplemented)
			return
		}
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, len(sent)))
	})
	b.documents = map[string]string{}
	put := func(name string) {
		t.Helper()
		if err := b.Put(context.Background(), name, strings.NewReader("one"), 3); err != nil {
			t.Fatal(err)
		}
	}
	put("m/acme/stable.json")
	put("m/acme/stable.json")
	put("data/" + strings.Repeat("0", 64))
	refuse = true
	put("m/acme/stable.json")
	if got := strings.Join(sent, ","); got != `*,"1",,"2",` {
		t.Errorf("the conditions were %s", got)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	shared := filepath.Join(dir, "credentials")
	if err := os.WriteFile(shared, []byte("[default]\naws_access_key_id = a\naws_secret_access_key = "+secret+"\n[half]\naws_access_key_id = a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := Config{AccessKey: "a", SecretKey: secret}
	rows := []struct {
		name, bucket string
		c            Config
		want         fault.Code
	}{
		{"bucket", "s3://updates", keys, fault.OK},
		{"prefix", "s3://updates/acme/v1/", keys, fault.OK},
		{"nothing", "s3://", keys, fault.Usage},
		{"password-in-it", "s3://a:" + secret + "@updates/", keys, fault.Usage},
		{"out-of-the-prefix", "s3://updates/../other", keys, fault.Usage},
		{"query", "s3://updates/acme?x", keys, fault.Usage},
		{"endpoint-without-scheme", "s3://updates", Config{Endpoint: "s3.example:9000", AccessKey: "a", SecretKey: secret}, fault.Usage},
		{"endpoint-with-password", "s3://updates", Config{Endpoint: "https://a:" + secret + "@s3.example", AccessKey: "a", SecretKey: secret}, fault.Usage},
		{"shared-file", "s3://updates", Config{File: shared}, fault.OK},
		{"no-such-profile", "s3://updates", Config{File: shared, Profile: "other"}, fault.Permission},
		{"half-a-profile", "s3://updates", Config{File: shared, Profile: "half"}, fault.Permission},
		{"no-credentials", "s3://updates", Config{File: filepath.Join(dir, "none")}, fault.Permission},
		{"half-an-environment", "s3://updates", Config{AccessKey: "a", File: filepath.Join(dir, "none")}, fault.Permission},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b, err := Open(r.bucket, r.c)
			if fault.CodeOf(err) != r.want {
				t.Errorf("%v, want %s", err, r.want)
			}
			if err != nil && strings.Contains(fmt.Sprintf("%+v", err), secret) {
				t.Errorf("a credential is told: %v", err)
			}
			if err == nil && b.Name() != strings.TrimSuffix(r.bucket, "/") {
				t.Errorf("it is called %s", b.Name())
			}
		})
	}
}
