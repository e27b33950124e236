// Package bucket keeps a mirror in a bucket of an S3-compatible object store.
//
// An object is there at once and whole, or not at all, which is what a mirror is made
// of. Nobody can lock a bucket: instead, a document is replaced only while it is the one
// that was there when the push began, so that of two pushes at once the one that is late
// ends, with the code locked, and leads nobody back. What a store answers is told by its
// code alone; no credential is part of an error.
package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"shoal/internal/fault"
	"shoal/manifest/tree"
)

const (
	scheme    = "s3://"
	amazon    = "https://s3.amazonaws.com"
	anyRegion = "us-east-1" // what stores without regions take requests to be signed for
	tries     = 4           // of one request, with a growing pause
	partSize  = 16 << 20    // of what is sent in parts, so many bytes at a time
)

// Config says which bucket, and as whom.
type Config struct {
	// Endpoint is the base URL of the store, without a path; empty means Amazon's.
	Endpoint string
	// Region is what requests are signed for. If empty, Amazon is asked for it, and other
	// stores have none.
	Region string
	// AccessKey and SecretKey, and SessionToken with temporary ones, are credentials. If
	// AccessKey is empty, they are read from File, as the profile Profile.
	AccessKey, SecretKey, SessionToken string
	// File is a shared credentials file; empty means the usual one of this user.
	File, Profile string
}

// Bucket is a place in a bucket: the objects below a prefix.
type Bucket struct {
	bucket, prefix string // the prefix is empty or ends in a slash
	endpoint       *url.URL
	c, anonymous   *minio.Client

	documents map[string]string // by name: the ETags of what was there at Lock, and is since
}

// Named reports whether name is written as a bucket's.
func Named(name string) bool { return strings.HasPrefix(name, scheme) }

// Open returns the place named s3://BUCKET/PREFIX. It asks the store for nothing.
func Open(name string, c Config) (*Bucket, error) {
	bucket, prefix, _ := strings.Cut(strings.TrimPrefix(name, scheme), "/")
	prefix = strings.TrimSuffix(prefix, "/")
	if !Named(name) || s3utils.CheckValidBucketNameStrict(bucket) != nil ||
		strings.ContainsAny(prefix, "?#\\") || path.Clean("/"+prefix) != "/"+prefix {
		// It may hold a password, and is not repeated.
		return nil, fault.New(fault.Usage, "what follows s3:// is no bucket and prefix").Do("write it as s3://BUCKET/PREFIX; credentials come from the environment")
	}
	if prefix != "" {
		prefix += "/"
	}
	if c.Endpoint == "" {
		c.Endpoint = amazon
	} else if c.Region == "" {
		c.Region = anyRegion
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fault.New(fault.Usage, "the endpoint is no base URL such as https://s3.example:9000") // it may hold a password
	}
	creds, err := signer(c)
	if err != nil {
		return nil, err
	}
	b := &Bucket{bucket: bucket, prefix: prefix, endpoint: u}
	if b.c, err = client(u, c.Region, creds); err == nil {
		b.anonymous, err = client(u, c.Region, credentials.NewStatic("", "", "", credentials.SignatureAnonymous))
	}
	if err != nil {
		return nil, fault.New(fault.Usage, "the endpoint %q: %w", u.Host, err)
	}
	return b, nil
}

func client(u *url.URL, region string, creds *credentials.Credentials) (*minio.Client, error) {
	return minio.New(u.Host, &minio.Options{Creds: creds, Secure: u.Scheme == "https", Region: region, MaxRetries: tries})
}

func signer(c Config) (*credentials.Credentials, error) {
	if c.AccessKey != "" && c.SecretKey != "" {
		return credentials.NewStaticV4(c.AccessKey, c.SecretKey, c.SessionToken), nil
	}
	creds := credentials.NewFileAWSCredentials(c.File, c.Profile)
	// What it says of the file is not told: it may quote a line.
	if v, err := creds.GetWithContext(nil); err != nil || v.AccessKeyID == "" || v.SecretAccessKey == "" {
		return nil, fault.New(fault.Permission, "there are no credentials for the bucket").
			Line("Neither the environment nor a shared credentials file has an access key and its secret.").
			Line("Nothing was written.").
			Do("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE and a file at AWS_SHARED_CREDENTIALS_FILE")
	}
	return creds, nil
}

// Name implements mirror.Place.
func (b *Bucket) Name() string { return strings.TrimSuffix(scheme+b.bucket+"/"+b.prefix, "/") }

// Lock implements mirror.Place. It keeps nobody away: Put does, who would go back.
func (b *Bucket) Lock(ctx context.Context) (func() error, error) {
	b.documents = map[string]string{}
	for _, dir := range []string{"root/", "m/", "b/"} {
		for o := range b.c.ListObjectsIter(ctx, b.bucket, minio.ListObjectsOptions{Prefix: b.prefix + dir, Recursive: true}) {
			if o.Err != nil {
				return nil, b.failure(o.Err)
			}
			b.documents[strings.TrimPrefix(o.Key, b.prefix)] = o.ETag
		}
	}
	return func() error { return nil }, nil
}

// Open implements mirror.Place.
func (b *Bucket) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	o, err := b.c.GetObject(ctx, b.bucket, b.prefix+name, minio.GetObjectOptions{})
	if err != nil {
		return nil, 0, b.failure(err)
	}
	st, err := o.Stat()
	if err != nil {
		o.Close()
		return nil, 0, b.failure(err)
	}
	return object{b, o}, st.Size, nil
}

// object gives errors of reading their codes.
type object struct {
	b *Bucket
	*minio.Object
}

func (o object) Read(p []byte) (int, error) {
	n, err := o.Object.Read(p)
	if err != nil && err != io.EOF {
		err = o.b.failure(err)
	}
	return n, err
}

// Put implements mirror.Place.
func (b *Bucket) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	if !document(name) {
		_, err := b.put(ctx, name, r, size, func(*minio.PutObjectOptions) {})
		return b.failure(err)
	}
	body, err := io.ReadAll(io.LimitReader(r, size))
	if err == nil && int64(len(body)) < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	st, err := b.put(ctx, name, bytes.NewReader(body), size, func(o *minio.PutObjectOptions) {
		if etag, ok := b.documents[name]; ok {
			o.SetMatchETag(etag)
		} else {
			o.SetMatchETagExcept("*")
		}
	})
	if minio.ToErrorResponse(err).StatusCode == http.StatusNotImplemented { // a store without conditions
		st, err = b.put(ctx, name, bytes.NewReader(body), size, func(*minio.PutObjectOptions) {})
	}
	if err == nil {
		b.documents[name] = st.ETag
	}
	return b.failure(err)
}

func (b *Bucket) put(ctx context.Context, name string, r io.Reader, size int64, condition func(*minio.PutObjectOptions)) (minio.UploadInfo, error) {
	o := minio.PutObjectOptions{ContentType: tree.ContentType(name), CacheControl: tree.CacheControl(name), PartSize: partSize}
	condition(&o)
	return b.c.PutObject(ctx, b.bucket, b.prefix+name, r, size, o)
}

// document reports whether name is of what is replaced by newer ones.
func document(name string) bool {
	dir, _, _ := strings.Cut(name, "/")
	return dir == "root" || dir == "m" || dir == "b"
}

// Copy implements mirror.Place. The store copies.
func (b *Bucket) Copy(ctx context.Context, from, to string) error {
	_, err := b.c.ComposeObject(ctx, minio.CopyDestOptions{Bucket: b.bucket, Object: b.prefix + to},
		minio.CopySrcOptions{Bucket: b.bucket, Object: b.prefix + from})
	return b.failure(err)
}

// List implements mirror.Place.
func (b *Bucket) List(ctx context.Context) ([]string, error) {
	var names []string
	for o := range b.c.ListObjectsIter(ctx, b.bucket, minio.ListObjectsOptions{Prefix: b.prefix, Recursive: true}) {
		if o.Err != nil {
			return nil, b.failure(o.Err)
		}
		if name := strings.TrimPrefix(o.Key, b.prefix); tree.Valid(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// Remove implements mirror.Place.
func (b *Bucket) Remove(ctx context.Context, name string) error {
	return b.failure(b.c.RemoveObject(ctx, b.bucket, b.prefix+name, minio.RemoveObjectOptions{}))
}

// Public reports whether somebody without credentials can read what is there, as machines
// do, and stock clients.
func (b *Bucket) Public(ctx context.Context) bool {
	_, err := b.anonymous.StatObject(ctx, b.bucket, b.prefix+tree.Root(1), minio.StatObjectOptions{})
	return err == nil
}

// failure gives what a store answered the code a person can act on. Of the answer it takes
// no text: a store could repeat there what it was sent.
func (b *Bucket) failure(err error) error {
	var answer minio.ErrorResponse
	var silence *url.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &answer):
		return b.answered(answer)
	case errors.As(err, &silence):
		// The text of silence itself repeats the address.
		return fault.New(fault.Unreachable, "%s does not answer: %w", b.endpoint.Host, silence.Err).
			Line("What the mirror offers is whole; the same command goes on.").
			Do("check --endpoint, and the way there").Fact("endpoint", b.endpoint.Host)
	}
	return err
}

func (b *Bucket) answered(a minio.ErrorResponse) error {
	fail := func(code fault.Code, format string, args ...any) *fault.Error {
		return fault.New(code, format, args...).Fact("answer", a.Code).Fact("status", a.StatusCode).
			Line("%s answered %q, HTTP status %d.", b.endpoint.Host, a.Code, a.StatusCode).
			Line("What the mirror offers is whole; the same command goes on.")
	}
	switch {
	case a.Code == minio.NoSuchBucket:
		return fail(fault.NotFound, "there is no bucket %q at %s", b.bucket, b.endpoint.Host).
			Do("make the bucket first, or check --endpoint and the region")
	case a.Code == minio.NoSuchKey, a.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s: %w", b.Name(), fs.ErrNotExist)
	case a.StatusCode == http.StatusPreconditionFailed, a.Code == "ConditionalRequestConflict":
		return fail(fault.Locked, "another process is pushing to %q", b.Name()).Do("try again when it is done")
	case a.StatusCode == http.StatusUnauthorized, a.StatusCode == http.StatusForbidden:
		return fail(fault.Permission, "the credentials do not allow this in %q", b.Name()).
			Do("check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and this machine's clock; pushing needs to list, read and write, and --prune to delete")
	case a.StatusCode == http.StatusInsufficientStorage, a.Code == "QuotaExceeded":
		return fail(fault.NoSpace, "there is no space left in %q", b.Name()).Do("push with --prune, or raise the quota")
	case a.StatusCode >= http.StatusInternalServerError:
		return fail(fault.Unreachable, "the store of %q is not well", b.Name()).Do("try again later")
	}
	return fail(fault.IO, "the store of %q refused a request", b.Name()).Do("check --endpoint and AWS_REGION")
}
