package witness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"shoal/internal/fault"
	"shoal/publisher/repo"
	"shoal/swarm/fleet"
)

const (
	answerTime   = 10 * time.Second // for one document, which is at most 1 MiB
	maxRedirects = 3
)

// Open returns the reader of the tree at place: an http or https URL, or a directory.
// It touches neither the network nor the disk. Web servers are asked over via; nil is a
// transport that trusts those the system trusts.
func Open(ctx context.Context, via http.RoundTripper, place string) (repo.Reader, error) {
	u, err := url.Parse(place)
	switch {
	case place == "":
		return nil, fault.New(fault.Usage, "a tree has no name")
	case err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "":
		return web(ctx, via, u), nil
	case err == nil && strings.Contains(place, "://"):
		return nil, fault.New(fault.Usage, "%q is neither an http or https URL nor a directory", place)
	}
	return dir(place), nil
}

func dir(path string) repo.Reader {
	return func(name string, limit int64) ([]byte, error) {
		f, err := os.Open(filepath.Join(path, filepath.FromSlash(name)))
		if errors.Is(err, fs.ErrNotExist) {
			// A stick that is not mounted must not look like one that is empty.
			if _, serr := os.Stat(path); serr != nil {
				return nil, fault.New(fault.Unreachable, "there is no directory %q", path)
			}
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return atMost(f, limit, name)
	}
}

func web(ctx context.Context, via http.RoundTripper, base *url.URL) repo.Reader {
	if via == nil {
		via = fleet.Transport(nil)
	}
	client := &http.Client{Transport: via, CheckRedirect: checkRedirect}
	return func(name string, limit int64) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath(name).String(), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("User-Agent", "shoal")
		res, err := client.Do(req)
		if err != nil {
			var u *url.Error
			if errors.As(err, &u) {
				err = u.Err // its text repeats the method and the address
			}
			return nil, fault.New(fault.Unreachable, "%s does not answer: %w", base.Redacted(), err)
		}
		defer res.Body.Close()
		switch res.StatusCode {
		case http.StatusOK:
		case http.StatusNotFound, http.StatusGone:
			return nil, fmt.Errorf("%s at %s: %w", name, base.Redacted(), fs.ErrNotExist)
		default:
			return nil, fault.New(fault.Unreachable, "%s answers %s for %s", base.Redacted(), res.Status, name)
		}
		return atMost(res.Body, limit, name)
	}
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errors.New("too many redirects")
	}
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("redirected from https to an unencrypted address")
	}
	return nil
}

func atMost(r io.Reader, limit int64, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fault.New(fault.Unreachable, "reading %s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, fault.New(fault.TooLarge, "%s is larger than %d bytes", name, limit)
	}
	return b, nil
}
