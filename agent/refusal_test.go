package agent

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
	"shoal/manifest/tree"
)

// Whatever is wrong with what a machine is offered, it says what, in a code of its own;
// the old program stays, byte for byte, and runs on; nothing unfinished is left.
func TestWhatIsRefused(t *testing.T) {
	next := agenttest.Program("2", 0)
	sum := manifest.Sum(next)
	rows := []struct {
		name string
		do   func(b *bench)
		want fault.Code
		text string // what the message must say
	}{
		{"artifact-tampered", func(b *bench) {
			bad := bytes.Clone(next)
			bad[len(bad)-2] ^= 1
			b.Put(tree.Data(sum), bad)
		}, fault.ContentMismatch, "not the signed file"},
		{"artifact-longer-than-signed", func(b *bench) { b.Put(tree.Data(sum), append(bytes.Clone(next), "# more"...)) },
			fault.LengthExceeded, "more than the"},
		{"artifact-cut-short", func(b *bench) { b.Put(tree.Data(sum), next[:20]) }, fault.ContentMismatch, "not the signed file"},
		{"info-dict-tampered", func(b *bench) {
			p := b.Artifact("acme", next).Payloads[0]
			b.Put(tree.Info(p.InfoSHA256), []byte("d6:lengthi1e4:name4:acme12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae"))
		}, fault.BadInfo, "info dict"},
		{"manifest-tampered", func(b *bench) {
			b.Release(stable, 2, next, manifesttest.Envelope(func(e *manifest.Envelope) {
				e.Payload = bytes.Replace(e.Payload, []byte(`"1.0.2"`), []byte(`"9.9.9"`), 1)
			}))
		}, fault.Threshold, "signatures"},
		{"manifest-unsigned", func(b *bench) {
			b.Release(stable, 2, next, manifesttest.Envelope(func(e *manifest.Envelope) { e.Signatures[0].Sig, e.Signatures[1].Sig = nil, nil }))
		}, fault.Threshold, "0 of 2"},
		{"manifest-expired", func(b *bench) { b.Now = b.Now.AddDate(0, 0, 91) }, fault.Expired, "ran out of date"},
		{"manifest-older", func(b *bench) {
			b.update(Choice{})
			b.old = next
			b.Release(stable, 1, agenttest.Program("older", 0))
		}, fault.Rollback, "older than what is trusted"},
		{"another-fleet-behind-the-source", func(b *bench) {
			b.pin(manifest.Sum([]byte("another fleet")))
		}, fault.PinMismatch, "another fleet"},
		{"publisher-gone", func(b *bench) { b.cfg.Sources.Publisher = "http://127.0.0.1:1" }, fault.Unreachable, "127.0.0.1:1"},
		{"artifact-gone", func(b *bench) { b.Remove(tree.Data(sum)) }, fault.Unreachable, "no source"},
		{"wrong-kind", func(b *bench) {
			b.Release(stable, 2, next, manifesttest.WithManifest(func(m *manifest.Manifest) { m.Artifacts[0].Kind = manifest.KindTree }))
		}, fault.Policy, `takes a "binary"`},
		{"larger-than-the-cache-may-hold", func(b *bench) { b.cfg.Disk.Cache = 10 }, fault.Quota, "larger than this machine allows"},
		{"pre-hook-fails", func(b *bench) { b.cfg.Apps[0].Hooks.Pre = []string{"/bin/sh", "-c", "echo not now; exit 4"} },
			fault.ApplyFailed, "pre"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newBench(t)
			b.cfg.idle = 200_000_000 // 0.2 s without peers
			b.Release(stable, 2, next)
			r.do(b)
			still := b.running()
			u := b.update(Choice{})
			if u.Code != r.want || u.Error == nil {
				t.Fatalf("%s (%+v), want %s", u.Code, u.Error, r.want)
			}
			text := u.Error.Message + strings.Join(u.Error.Lines, " ")
			if !strings.Contains(text, r.text) {
				t.Errorf("the message %q does not say %q", text, r.text)
			}
			if len(u.Error.Next) == 0 && r.want != fault.ApplyFailed {
				t.Errorf("the error %+v does not say what to do next", u.Error)
			}
			still()
			b.installed(b.old)
			// Nothing in the cache has the name of verified content.
			if entries, _ := os.ReadDir(filepath.Join(b.cfg.StateDir, "cache")); r.want == fault.ContentMismatch {
				for _, e := range entries {
					if e.Name() == sum.String() {
						t.Error("the bad file is in the cache as verified")
					}
				}
			}
		})
	}
}

// A download that breaks off is resumed, from where it was.
func TestBrokenDownloadIsResumed(t *testing.T) {
	b := newBench(t)
	b.cfg.idle = 200_000_000
	next := agenttest.Large("2", 0)
	b.Release(stable, 2, next)
	base, err := url.Parse(b.cfg.Sources.Publisher)
	if err != nil {
		t.Fatal(err)
	}
	var ranges []string
	broken := true
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/data/") {
			http.Redirect(w, r, base.JoinPath(r.URL.Path).String(), http.StatusFound)
			return
		}
		ranges = append(ranges, r.Header.Get("Range"))
		if broken {
			w.Header().Set("Content-Length", "220000")
			w.Write(next[:100_000])
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "", b.Now, bytes.NewReader(next))
	}))
	defer srv.Close()
	b.cfg.Sources.Publisher = srv.URL
	u := b.update(Choice{})
	b.want(u, fault.Unreachable, manifest.StateWaiting)
	b.installed(b.old)
	broken = false
	u = b.update(Choice{})
	b.want(u, fault.OK, manifest.StateHealthy)
	b.installed(next)
	// The three whole pieces that came are not asked for again.
	if got := u.Update.Bytes.Webseed; got != int64(len(next))-3*32<<10 {
		t.Errorf("%d bytes of %d were fetched, by asking for %q", got, len(next), ranges)
	}
}

// A source that begins with bad bytes and then breaks off, or says no more, does not
// spoil what the next source adds.
func TestLyingSourceSpoilsNoOther(t *testing.T) {
	next := agenttest.Large("2", 0)
	rows := []struct {
		name  string
		bytes int
	}{
		{"bad-beginning", 100_000},
		{"bad-to-the-last-byte-but-no-end", len(next)},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newBench(t)
			b.cfg.idle = 200_000_000
			b.Release(stable, 2, next)
			base, err := url.Parse(b.cfg.Sources.Publisher)
			if err != nil {
				t.Fatal(err)
			}
			liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r2 *http.Request) {
				if !strings.HasPrefix(r2.URL.Path, "/data/") {
					http.Redirect(w, r2, base.JoinPath(r2.URL.Path).String(), http.StatusFound)
					return
				}
				w.Header().Set("Content-Length", "2000000")
				w.Write(bytes.Repeat([]byte("x"), r.bytes))
				panic(http.ErrAbortHandler)
			}))
			defer liar.Close()
			b.cfg.Sources = Sources{Publisher: liar.URL, Mirrors: []string{b.cfg.Sources.Publisher}}
			b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
			b.installed(next)
		})
	}
}

func TestAllowExpired(t *testing.T) {
	b := newBench(t)
	next := agenttest.Program("2", 0)
	b.Release(stable, 2, next)
	b.Now = b.Now.AddDate(0, 0, 91)
	b.want(b.update(Choice{}), fault.Expired, manifest.StateWaiting)
	b.want(b.update(Choice{AllowExpired: true}), fault.OK, manifest.StateHealthy)
	b.installed(next)
	// Once: the next check says again that it is out of date, and the program runs on.
	b.want(b.update(Choice{}), fault.Expired, manifest.StateHealthy)
	b.installed(next)
}

func TestPortInUse(t *testing.T) {
	b := newBench(t)
	next := agenttest.Large("2", 0)
	b.Release(stable, 2, next)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b.cfg.Listen = l.Addr().String()
	a := b.open()
	err = a.Run(t.Context())
	var e *fault.Error
	if !errors.As(err, &e) || e.Code != fault.PortInUse || !strings.Contains(err.Error(), b.cfg.Listen) || len(e.Next) == 0 {
		t.Errorf("Run: %v, want port_in_use that names %s", err, b.cfg.Listen)
	}
	a.Close()
	b.installed(b.old)
	// A single update needs no particular port.
	b.cfg.Peers = []string{b.Seed(next)}
	b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
}

func TestSecondAgentIsRefused(t *testing.T) {
	b := newBench(t)
	b.open()
	if _, err := Open(t.Context(), b.cfg); !errors.Is(err, fault.Locked) {
		t.Errorf("a second agent: %v, want locked", err)
	}
}

func TestBrokenConfigurations(t *testing.T) {
	app := func(change func(*AppConfig)) func(*Config) {
		return func(c *Config) { change(&c.Apps[0]) }
	}
	rows := []struct {
		name string
		do   func(*Config)
		want fault.Code
	}{
		{"no-state-directory", func(c *Config) { c.StateDir = "" }, fault.Config},
		{"listen-without-port", func(c *Config) { c.Listen = "localhost" }, fault.Config},
		{"checks-all-the-time", func(c *Config) { c.Check.Every = 1 }, fault.Config},
		{"jitter-above-one", func(c *Config) { c.Check.Jitter = 2 }, fault.Config},
		{"unknown-clock", func(c *Config) { c.Time = "sundial" }, fault.Config},
		{"fleet-id-without-prefix", func(c *Config) { c.FleetID = strings.Repeat("0", 64) }, fault.Config},
		{"another-fleet-id", func(c *Config) { c.FleetID = manifest.Sum([]byte("other")).Prefixed() }, fault.PinMismatch},
		{"peer-without-port", func(c *Config) { c.Peers = []string{"10.0.0.4"} }, fault.Config},
		{"tracker-that-is-no-url", func(c *Config) { c.Trackers = []string{"tracker"} }, fault.Config},
		{"source-that-is-no-url", func(c *Config) { c.Sources.Publisher = "gopher://x" }, fault.Config},
		{"two-apps-of-one-name", func(c *Config) { c.Apps = append(c.Apps, c.Apps[0]) }, fault.Config},
		{"two-apps-at-one-target", func(c *Config) {
			second := c.Apps[0]
			second.Name = "other"
			c.Apps = append(c.Apps, second)
		}, fault.Config},
		{"app-without-channel", app(func(a *AppConfig) { a.Channel = "" }), fault.Config},
		{"channel-that-climbs", app(func(a *AppConfig) { a.Channel = "../x" }), fault.Config},
		{"relative-target", app(func(a *AppConfig) { a.Target = "acme" }), fault.Config},
		{"unknown-kind", app(func(a *AppConfig) { a.Kind = "container" }), fault.Config},
		{"unknown-swap", app(func(a *AppConfig) { a.Swap = "copy" }), fault.Config},
		{"unknown-health-check", app(func(a *AppConfig) { a.Health.Type = "pulse" }), fault.Config},
		{"health-command-without-one", app(func(a *AppConfig) { a.Health.Type = "command" }), fault.Config},
		{"stay-up-of-nothing", app(func(a *AppConfig) { a.Health.Type = "stay-up" }), fault.Config},
		{"two-kinds-of-service", app(func(a *AppConfig) {
			a.Service = ServiceConfig{Systemd: "acme.service", Command: ServiceCommand{Restart: []string{"x"}}}
		}), fault.Config},
		{"interface-that-is-no-pattern", func(c *Config) { c.Sources.LAN.Interfaces = []string{"!"} }, fault.Config},
		{"not-joined", func(c *Config) { c.JoinFile = filepath.Join(c.StateDir, "nowhere", "join.json") }, fault.Config},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newBench(t)
			r.do(&b.cfg)
			a, err := Open(t.Context(), b.cfg)
			if err == nil {
				a.Close()
			}
			var e *fault.Error
			if !errors.As(err, &e) || e.Code != r.want {
				t.Errorf("Open: %v, want %s", err, r.want)
			}
			b.installed(b.old)
		})
	}
}

// A state directory that is no directory, and the like, are errors and never panics.
func TestUnusablePlaces(t *testing.T) {
	b := newBench(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.cfg.StateDir = filepath.Join(file, "state")
	if _, err := Open(t.Context(), b.cfg); fault.CodeOf(err) != fault.IO {
		t.Errorf("state below a file: %v, want io", err)
	}
	b = newBench(t)
	if err := os.WriteFile(b.cfg.JoinFile, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), b.cfg); !errors.Is(err, fault.Config) {
		t.Errorf("a damaged join.json: %v, want config", err)
	}
}

// A source whose answers never end costs bounded memory and time.
func TestEndlessManifest(t *testing.T) {
	b := newBench(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/m/") {
			http.FileServer(http.Dir(b.Dir)).ServeHTTP(w, r)
			return
		}
		for block := bytes.Repeat([]byte(" "), 1<<16); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}))
	defer srv.Close()
	b.cfg.Sources.Publisher = srv.URL
	b.want(b.update(Choice{}), fault.TooLarge, manifest.StateWaiting)
	b.installed(b.old)
}
