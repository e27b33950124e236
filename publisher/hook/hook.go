// Package hook tells other programs what happened in a fleet.
//
// A webhook gets every event of the kinds it asked for, in their order, at least once: it
// is tried again, ever later, for a day, over restarts too. What is sent is signed with a
// secret and carries its time, so that the receiver can tell it from what others send and
// from what was sent before. Machines' words in it are escaped for where they are shown,
// and reach a program on its standard input alone.
//
// What waits to be sent is the log of events itself, of which each hook remembers how far
// it has come; it takes no more room than that.
package hook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"shoal/internal/fault"
	"shoal/publisher/fleet"
)

const (
	tryTimeout = 30 * time.Second
	firstRetry = 5 * time.Second
	lastRetry  = 10 * time.Minute
	giveUp     = 24 * time.Hour // one event; the next is sent then
	newsWait   = time.Minute    // for events, at a time
	pageSize   = 100
	maxSecret  = 4 << 10
	minSecret  = 16 // bytes
	killAfter  = 5 * time.Second
	maxSaid    = 1 << 10 // bytes of what a program writes to its standard error
)

// Config is one hook.
type Config struct {
	// URL is posted to. Either it or Exec must be set.
	URL string
	// Exec is a program and its arguments, which gets each event as JSON on its standard
	// input. A status other than 0 is a failure, which is logged with the end of what the
	// program wrote to its standard error, up to 1 KiB.
	Exec []string
	// On are the kinds of events to tell of; "rollout.*" means all that begin so.
	On []string
	// SecretFile holds what signs posts, and is one that its owner alone can read; without
	// one posts are not signed.
	SecretFile string
}

// Validate reports what is wrong with c.
func (c *Config) Validate() error {
	if (c.URL == "") == (len(c.Exec) == 0) {
		return errors.New("either url or exec is wanted")
	}
	if c.URL != "" {
		if u, err := url.Parse(c.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("%q is no URL of a web server", c.URL)
		}
	} else if c.SecretFile != "" {
		return errors.New("secret_file is for a url: a program that is run here needs none")
	}
	if len(c.On) == 0 {
		return errors.New(`on is empty: which events? As in [rollout.*, agent.failed, expiry.soon]`)
	}
	return nil
}

// wants reports whether an event of that kind is to be told.
func (c *Config) wants(kind string) bool {
	return slices.ContainsFunc(c.On, func(on string) bool {
		prefix, all := strings.CutSuffix(on, "*")
		return on == kind || all && strings.HasPrefix(kind, prefix)
	})
}

// name is under what the hook's place in the events is kept.
func (c *Config) name() string {
	if c.URL != "" {
		return "hook " + c.URL
	}
	return "hook exec " + strings.Join(c.Exec, "\x00")
}

// String names the hook in logs. A URL's path, query and user may be secrets, and so may
// the arguments of a program.
func (c *Config) String() string {
	if len(c.Exec) > 0 {
		return c.Exec[0]
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return "webhook"
	}
	return u.Scheme + "://" + u.Host
}

// Hooks are the hooks of one fleet; [New] makes them.
type Hooks struct {
	// Store has the events. It must be set.
	Store *fleet.Store
	// Fleet is its id, as it is told.
	Fleet string
	// Hooks are told.
	Hooks []Config
	// Clock is the time source. If nil, it is time.Now.
	Clock func() time.Time
	// Logger receives what fails. If nil, nothing is logged.
	Logger *slog.Logger

	// retry replaces the wait before the first retry, in tests.
	retry   time.Duration
	secrets [][]byte // of Hooks
}

// New returns h with its secrets read.
func New(h Hooks) (*Hooks, error) {
	if h.Clock == nil {
		h.Clock = time.Now
	}
	if h.Logger == nil {
		h.Logger = slog.New(slog.DiscardHandler)
	}
	if h.retry == 0 {
		h.retry = firstRetry
	}
	h.secrets = make([][]byte, len(h.Hooks))
	for i := range h.Hooks {
		if err := h.Hooks[i].Validate(); err != nil {
			return nil, fault.New(fault.Config, "webhooks: %w", err)
		}
		var err error
		if h.secrets[i], err = readSecret(h.Hooks[i].SecretFile); err != nil {
			return nil, err
		}
	}
	return &h, nil
}

// Run tells of events until ctx ends. A hook that is new begins with what happens next.
func (h *Hooks) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range h.Hooks {
		wg.Go(func() {
			for {
				err := h.follow(ctx, &h.Hooks[i], h.secrets[i])
				if ctx.Err() != nil {
					return
				}
				h.Logger.Error("a hook cannot read the events", "hook", h.Hooks[i].String(), "err", err)
				if !sleep(ctx, newsWait) {
					return
				}
			}
		})
	}
	wg.Wait()
}

func readSecret(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Config, "reading a webhook's secret: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fault.New(fault.Config, "reading a webhook's secret: %w", err)
	}
	if fi.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fault.New(fault.Config, "others than its owner can read the webhook's secret in %q (mode %04o)", path, fi.Mode().Perm()).
			Line("Whoever has it can send what the receiver takes for this publisher's.").
			Do("chmod 600 %s, with a new secret if others may have read it", path).Fact("key", "webhooks")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, fault.New(fault.Config, "reading a webhook's secret: %w", err)
	}
	if b = bytes.TrimSpace(b); len(b) < minSecret || len(b) > maxSecret {
		return nil, fault.New(fault.Config, "the webhook's secret in %q has %d bytes; %d to %d are wanted", path, len(b), minSecret, maxSecret).
			Do("umask 077; head -c 32 /dev/urandom | base64 > %s", path)
	}
	return b, nil
}

// follow tells one hook of the events, one after the other.
func (h *Hooks) follow(ctx context.Context, c *Config, secret []byte) error {
	at, known, err := h.Store.Cursor(c.name())
	if err != nil {
		return err
	}
	if !known {
		page, err := h.Store.Events(ctx, fleet.EventQuery{Last: true, Limit: 1})
		if err != nil {
			return err
		}
		at = page.Next
		// Remembered before anything is told: what happens next must not be skipped by a
		// restart.
		if err := h.Store.SetCursor(c.name(), at); err != nil {
			return err
		}
	}
	for {
		page, err := h.Store.Events(ctx, fleet.EventQuery{After: at, Limit: pageSize, Wait: newsWait})
		if err != nil {
			return err
		}
		told := at
		for _, e := range page.Events {
			if c.wants(e.Kind) {
				if err := h.tell(ctx, c, secret, &e); err != nil {
					return err
				}
				if err := h.Store.SetCursor(c.name(), e.Seq); err != nil {
					return err
				}
				told = e.Seq
			}
			at = e.Seq
		}
		if at != told { // the rest was not for this hook
			if err := h.Store.SetCursor(c.name(), at); err != nil {
				return err
			}
		}
	}
}

// tell tells of one event until it is taken, or for a day. The error is of ctx.
func (h *Hooks) tell(ctx context.Context, c *Config, secret []byte, e *fleet.Event) error {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = h.retry, lastRetry
	for {
		err := h.try(ctx, c, secret, e)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			return nil
		}
		if h.Clock().Sub(e.Time) > giveUp {
			h.Logger.Error("a hook was not told of an event", "hook", c.String(), "event", e.Kind, "seq", e.Seq, "err", err)
			return nil
		}
		wait := b.NextBackOff()
		h.Logger.Warn("a hook failed", "hook", c.String(), "event", e.Kind, "seq", e.Seq, "err", err, "again_in", wait.Round(time.Second))
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// message is what is sent. Chat servers show text; programs read event.
type message struct {
	Schema string       `json:"schema"` // "shoal.hook/v1"
	Fleet  string       `json:"fleet"`
	Text   string       `json:"text"`
	Event  *fleet.Event `json:"event"`
}

func (h *Hooks) try(ctx context.Context, c *Config, secret []byte, e *fleet.Event) error {
	// json.Marshal escapes <, > and &, too.
	body, err := json.Marshal(message{"shoal.hook/v1", h.Fleet, Text(e), e})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	if c.URL == "" {
		cmd := exec.CommandContext(ctx, c.Exec[0], c.Exec[1:]...)
		cmd.WaitDelay = killAfter
		return run(cmd, append(body, '\n'))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "shoal")
	if secret != nil {
		req.Header.Set("Shoal-Signature", Sign(secret, h.Clock(), body))
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		var about *url.Error // has the whole URL
		if errors.As(err, &about) {
			err = about.Err
		}
		return err
	}
	defer res.Body.Close()
	io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection is used again
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("the server answers %d", res.StatusCode)
	}
	return nil
}

// Sign returns the value of the header Shoal-Signature for a body sent at t: the Unix
// time, and HMAC-SHA-256 in hex of that time in digits, a dot and the body. A receiver
// computes it again, compares in constant time, and refuses what is older or newer than
// five minutes.
func Sign(secret []byte, t time.Time, body []byte) string {
	at := strconv.FormatInt(t.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(at + "."))
	mac.Write(body)
	return "t=" + at + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}
