package checker

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
	"shoal/manifest/tree"
)

var (
	old  = agenttest.Program("41", 0)
	good = agenttest.Program("42", 0)
)

// bench is a publisher and a checker of its stable channel, which holds 42.
type bench struct {
	*agenttest.Publisher
	t     *testing.T
	query Query
	out   string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	p := agenttest.New(t)
	b := &bench{Publisher: p, t: t, out: filepath.Join(t.TempDir(), "program")}
	b.query = Query{Dir: filepath.Join(t.TempDir(), "state"), Source: p.Dir, Channel: manifesttest.Stable,
		Platform: manifest.Host(), Now: new(p.Now), Version: "1.0.0"}
	b.init(Init{})
	b.Release(manifesttest.Stable, 41, old)
	b.want(b.check(), fault.OK)
	b.Release(manifesttest.Stable, 42, good)
	b.want(b.check(), fault.OK)
	b.want(b.check(), fault.Same)
	return b
}

// init makes the checker's state for the fleet.
func (b *bench) init(i Init) {
	b.t.Helper()
	pin := b.Pin()
	i.Dir, i.Root = b.query.Dir, filepath.Join(b.Dir, filepath.FromSlash(tree.Root(1)))
	if i.Pin == nil {
		i.Pin = &pin
	}
	if _, err := i.Do(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) check() *Result {
	b.query.Now = new(b.Now)
	r, _ := b.query.Check(context.Background())
	return r
}

func (b *bench) update() *Result {
	b.query.Now = new(b.Now)
	r, _ := b.query.Update(context.Background(), b.out)
	return r
}

func (b *bench) want(r *Result, code fault.Code) {
	b.t.Helper()
	if r.Code != code {
		b.t.Fatalf("code %s (%s), want %s", r.Code, r.Message, code)
	}
	if wantExit := code.Exit(); r.Exit != wantExit && code != fault.NoArtifact {
		b.t.Errorf("exit %d, want %d", r.Exit, wantExit)
	}
}

// files is the content of every file below dir.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What must be refused, each with its own code, and with the state as it was.
func TestAttacksThroughATree(t *testing.T) {
	stable, nightly := manifesttest.Stable, manifesttest.Nightly
	rows := []struct {
		name string
		do   func(b *bench)
		want fault.Code
	}{
		{"signed-by-strangers", func(b *bench) {
			b.Release(stable, 43, good, manifesttest.SignedBy("stranger-1", "stranger-2"))
		}, fault.Threshold},
		{"one-of-two-signatures", func(b *bench) { b.Release(stable, 43, good, manifesttest.SignedBy("release-1")) }, fault.Threshold},
		{"signed-by-root-keys", func(b *bench) { b.Release(stable, 43, good, manifesttest.SignedBy("root-1", "root-2")) }, fault.Threshold},
		{"unsigned", func(b *bench) {
			b.Put(tree.Manifest(stable), []byte(`{"type":"shoal.manifest.v1","payload":"e30=","signatures":[]}`))
		}, fault.Malformed},
		{"payload-changed", func(b *bench) {
			b.Release(stable, 43, good, manifesttest.Envelope(func(e *manifest.Envelope) {
				e.Payload = bytes.Replace(e.Payload, []byte("1.0.43"), []byte("1.0.44"), 1)
			}))
		}, fault.Threshold},
		{"rollback", func(b *bench) { b.Release(stable, 41, old) }, fault.Rollback},
		{"equivocation", func(b *bench) { b.Release(stable, 42, old) }, fault.Equivocation},
		{"another-channel", func(b *bench) { b.Put(tree.Manifest(stable), b.Draft(nightly, 43, good)) }, fault.Threshold},
		{"another-channel-same-keys", func(b *bench) {
			b.Put(tree.Manifest(stable), b.Draft(nightly, 43, good, manifesttest.SignedBy("release-1", "release-2")))
		}, fault.WrongTarget},
		{"epoch-made-up", func(b *bench) {
			b.Release(stable, 43, good, manifesttest.WithManifest(func(m *manifest.Manifest) { m.Epoch = 5 }))
		}, fault.RootBehind},
		{"expired-when-offered", func(b *bench) {
			b.Release(stable, 43, good)
			b.Now = b.Now.AddDate(0, 0, 91)
		}, fault.Expired},
		{"expired-while-held", func(b *bench) { b.Now = b.Now.AddDate(0, 0, 91) }, fault.Expired},
		{"root-expired", func(b *bench) { b.Now = b.Now.AddDate(3, 0, 0) }, fault.RootExpired},
		{"valid-for-too-long", func(b *bench) {
			b.Release(stable, 43, good, manifesttest.Set("expires", b.Now.AddDate(1, 0, 0).UTC().Format(time.RFC3339)))
		}, fault.Policy},
		{"setuid", func(b *bench) { b.Release(stable, 43, good, manifesttest.Set("artifacts.0.mode", "4755")) }, fault.Policy},
		{"name-that-climbs", func(b *bench) { b.Release(stable, 43, good, manifesttest.Set("artifacts.0.name", "../acme")) }, fault.UnsafePath},
		{"duplicate-member", func(b *bench) {
			b.Release(stable, 43, good, manifesttest.Replace(`"sequence": 43`, `"sequence": 43, "SEQUENCE": 1`))
		}, fault.Malformed},
		{"needs-a-newer-agent", func(b *bench) {
			b.Release(stable, 43, good, manifesttest.WithManifest(func(m *manifest.Manifest) { m.MinAgent = "9.0.0" }))
		}, fault.AgentTooOld},
		{"a-gigabyte", func(b *bench) {
			path := filepath.Join(b.Dir, filepath.FromSlash(tree.Manifest(stable)))
			if err := os.Truncate(path, 1<<30); err != nil {
				b.t.Fatal(err)
			}
		}, fault.TooLarge},
		{"no-manifest", func(b *bench) { b.Remove(tree.Manifest(stable)) }, fault.NotFound},
		{"no-such-channel", func(b *bench) { b.query.Channel.Name = "beta" }, fault.ChannelGone},
		{"no-tree", func(b *bench) { b.query.Source = filepath.Join(b.Dir, "unplugged") }, fault.Unreachable},
		{"root-by-too-few", func(b *bench) {
			b.Put(tree.Root(2), b.NextRoot(manifesttest.SignedBy("root-1")))
		}, fault.Threshold},
		{"root-that-skips", func(b *bench) {
			b.Put(tree.Root(2), b.NextRoot(manifesttest.WithRoot(func(r *manifest.Root) { r.Version = 3 })))
		}, fault.RootChain},
		{"root-of-another-past", func(b *bench) {
			b.Put(tree.Root(2), b.NextRoot(manifesttest.WithRoot(func(r *manifest.Root) { r.Prev = new(manifest.Sum(nil)) })))
		}, fault.RootChain},
		{"manifest-as-root", func(b *bench) { b.Put(tree.Root(2), b.Draft(stable, 43, good)) }, fault.WrongType},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newBench(t)
			if err := os.WriteFile(b.out, []byte("as it was"), 0o600); err != nil {
				t.Fatal(err)
			}
			before := files(t, b.query.Dir)
			r.do(b)
			for _, ask := range []func() *Result{b.check, b.update} {
				got := ask()
				b.want(got, r.want)
				if got.Message == "" || got.Events == nil {
					t.Errorf("the answer lacks a message or its events: %+v", got)
				}
			}
			if diff := cmp.Diff(before, files(t, b.query.Dir)); diff != "" {
				t.Errorf("the state changed:\n%s", diff)
			}
			assertOut(t, b.out, "as it was")
		})
	}
}

// assertOut fails unless out has that content and nothing is left beside it.
func assertOut(t *testing.T, out, content string) {
	t.Helper()
	b, err := os.ReadFile(out)
	if content == "" && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is there: %q", out, b)
	}
	if content != "" && (err != nil || string(b) != content) {
		t.Errorf("%s: %q, %v; want %q", out, b, err, content)
	}
	entries, err := os.ReadDir(filepath.Dir(out))
	if err != nil || len(entries) > 1 {
		t.Errorf("left beside it: %v, %v", entries, err)
	}
}

// What is wrong with the bytes themselves shows on update alone.
func TestAttacksOnTheArtifact(t *testing.T) {
	sum := manifest.Sum(good)
	huge := manifesttest.WithManifest(func(m *manifest.Manifest) {
		m.Artifacts[0].Length, m.Artifacts[0].Payloads[0].Length = 1<<52, 1<<52
	})
	rows := []struct {
		name string
		do   func(b *bench)
		want fault.Code
	}{
		{"bytes-of-another-release", func(b *bench) { b.Put(tree.Data(sum), old) }, fault.ContentMismatch},
		{"one-bit-changed", func(b *bench) {
			bad := bytes.Clone(good)
			bad[10] ^= 1
			b.Put(tree.Data(sum), bad)
		}, fault.ContentMismatch},
		{"cut-short", func(b *bench) { b.Put(tree.Data(sum), good[:10]) }, fault.ContentMismatch},
		{"one-byte-more", func(b *bench) { b.Put(tree.Data(sum), append(bytes.Clone(good), 'x')) }, fault.LengthExceeded},
		{"endless", func(b *bench) {
			if err := os.Truncate(filepath.Join(b.Dir, filepath.FromSlash(tree.Data(sum))), 1<<40); err != nil {
				b.t.Fatal(err)
			}
		}, fault.LengthExceeded},
		{"missing", func(b *bench) { b.Remove(tree.Data(sum)) }, fault.NotFound},
		{"larger-than-anyone-has", func(b *bench) { b.Release(manifesttest.Stable, 43, good, huge) }, fault.Quota},
		{"info-dict-of-another-release", func(b *bench) {
			info := b.Artifact("acme", good).Payloads[0].InfoSHA256
			b.Put(tree.Info(info), []byte("d6:lengthi1e4:name4:acme12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae"))
		}, fault.BadInfo},
		{"nothing-for-this-platform", func(b *bench) { b.query.Platform.Arch = "riscv128" }, fault.NoArtifact},
		{"two-for-this-platform", func(b *bench) {
			b.Release(manifesttest.Stable, 43, good, manifesttest.WithManifest(func(m *manifest.Manifest) {
				second := m.Artifacts[0]
				second.Name, second.Arch = "acme-2", "made-up"
				m.Artifacts = append(m.Artifacts, second)
			}), manifesttest.Set("artifacts.1.arch", manifest.Host().Arch)) // no publisher drafts this
		}, fault.AmbiguousArtifact},
		{"blocked", func(b *bench) {
			b.Release(manifesttest.Stable, 43, good, manifesttest.WithManifest(func(m *manifest.Manifest) {
				m.Blocked = []manifest.Blocked{{SHA256: manifest.Sum(old), Reason: "data loss"}}
			}), manifesttest.Set("blocked.0.sha256", sum.String())) // nor this
		}, fault.Blocked},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newBench(t)
			r.do(b)
			b.want(b.update(), r.want)
			assertOut(t, b.out, "")
			if err := os.WriteFile(b.out, []byte("as it was"), 0o600); err != nil {
				t.Fatal(err)
			}
			b.want(b.update(), r.want)
			assertOut(t, b.out, "as it was")
		})
	}
}

func TestUpdateWritesTheArtifact(t *testing.T) {
	b := newBench(t)
	b.want(b.update(), fault.Same) // known, and written all the same
	assertOut(t, b.out, string(good))
	if fi, err := os.Stat(b.out); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v; want the artifact's 0755", fi.Mode(), err)
	}
	next := agenttest.Program("43", 0)
	b.Release(manifesttest.Stable, 43, next)
	r := b.update()
	b.want(r, fault.OK)
	assertOut(t, b.out, string(next))
	if r.Sequence != 43 || r.Epoch != 1 || r.Version != "1.0.43" || r.RootVersion != 1 || r.Artifact == nil ||
		r.Artifact.SHA256 != manifest.Sum(next) || r.Freshness != manifest.FreshStale || len(r.SignedBy) != 2 {
		t.Errorf("the answer is %+v", r)
	}
}

func TestNothingForThePlatformIsTrustedAllTheSame(t *testing.T) {
	b := newBench(t)
	b.Release(manifesttest.Stable, 43, good)
	b.query.Platform.Arch = "riscv128"
	r := b.check()
	b.want(r, fault.NoArtifact)
	if r.Exit != 0 || r.Sequence != 43 {
		t.Errorf("exit %d, sequence %d; want 0 and 43", r.Exit, r.Sequence)
	}
	b.query.Platform = manifest.Host()
	b.Release(manifesttest.Stable, 42, good)
	b.want(b.check(), fault.Rollback)
}

func TestRecoveryFromAThief(t *testing.T) {
	b := newBench(t)
	b.query.Channel = manifesttest.Nightly
	b.Release(manifesttest.Nightly, 1<<53, good) // as far forward as it goes
	b.want(b.check(), fault.OK)
	stolen := b.Draft(manifesttest.Nightly, 1<<53, good)
	b.Rotate(manifesttest.WithRoot(func(r *manifest.Root) { r.Channels[1].Epoch = 2 }))
	b.PutRoots()
	b.Release(manifesttest.Nightly, 1, good)
	r := b.check()
	b.want(r, fault.OK)
	if r.Epoch != 2 || r.Sequence != 1 || r.RootVersion != 2 {
		t.Errorf("at root %d, %d.%d; want root 2 and 2.1", r.RootVersion, r.Epoch, r.Sequence)
	}
	b.Put(tree.Manifest(manifesttest.Nightly), stolen)
	b.want(b.check(), fault.Rollback)
}

// A root rightly accepted stays accepted, whatever came with it.
func TestGoodRootStaysWithABadManifest(t *testing.T) {
	b := newBench(t)
	b.Rotate()
	b.PutRoots()
	b.Release(manifesttest.Stable, 43, good, manifesttest.SignedBy("release-1"))
	r := b.check()
	b.want(r, fault.Threshold)
	if r.RootVersion != 2 || r.Sequence != 42 {
		t.Errorf("root %d, sequence %d; want 2 and 42", r.RootVersion, r.Sequence)
	}
}

func TestBeaconsOnlyInform(t *testing.T) {
	b := newBench(t)
	held := b.Draft(manifesttest.Stable, 42, good)
	b.Put(tree.Beacon(manifesttest.Stable), b.Beacon(held))
	if r := b.check(); r.Code != fault.Same || r.Freshness != manifest.FreshCurrent {
		t.Errorf("%s, %s; want same and current", r.Code, r.Freshness)
	}
	b.Remove(tree.Beacon(manifesttest.Stable)) // the stored one still speaks
	if r := b.check(); r.Freshness != manifest.FreshCurrent {
		t.Errorf("without the file: %s, want current", r.Freshness)
	}
	b.Now = b.Now.Add(time.Hour)
	next := b.Draft(manifesttest.Stable, 43, good)
	b.Put(tree.Beacon(manifesttest.Stable), b.Beacon(next))
	if r := b.check(); r.Code != fault.Same || r.Freshness != manifest.FreshBehind {
		t.Errorf("%s, %s; want same and behind", r.Code, r.Freshness)
	}
	b.Now = b.Now.Add(time.Hour)
	b.Put(tree.Beacon(manifesttest.Stable), b.Beacon(next, manifesttest.SignedBy("stranger")))
	r := b.check()
	if r.Code != fault.Same || len(r.Events) != 1 || r.Events[0].Code != fault.Threshold {
		t.Errorf("%s with events %v; want same and one threshold event", r.Code, r.Events)
	}
	b.Now = b.Now.Add(72 * time.Hour)
	b.Remove(tree.Beacon(manifesttest.Stable))
	if r := b.check(); r.Code != fault.Same || r.Freshness != manifest.FreshStale {
		t.Errorf("%s, %s; want same and stale", r.Code, r.Freshness)
	}
}

func TestClockAt1970(t *testing.T) {
	b := newBench(t)
	b.Now = time.Unix(0, 0)
	b.want(b.check(), fault.Same) // by the floor of the documents
	b.Publisher.Now = manifesttest.Start.Add(48 * time.Hour)
	env := b.Draft(manifesttest.Stable, 43, good)
	b.Put(tree.Manifest(manifesttest.Stable), env)
	b.Now = time.Unix(0, 0)
	r := b.check()
	b.want(r, fault.OK)
	if len(r.Events) == 0 || r.Events[0].Code != fault.ClockBehind {
		t.Errorf("events %v, want clock_behind", r.Events)
	}
}

func TestFloorsOfANewcomer(t *testing.T) {
	b := newBench(t)
	b.query.Dir = filepath.Join(t.TempDir(), "newcomer")
	b.init(Init{MinRoot: 2})
	b.want(b.check(), fault.RootBehind)
	b.Rotate()
	b.PutRoots()
	b.want(b.check(), fault.OK)

	b.query.Dir = filepath.Join(t.TempDir(), "other")
	b.init(Init{MinSequence: manifest.Order{Epoch: 1, Sequence: 43}})
	b.want(b.check(), fault.Rollback)
	b.Release(manifesttest.Stable, 43, good)
	b.want(b.check(), fault.OK)
	b.query.Channel = manifesttest.Nightly // every channel that is asked for
	b.Release(manifesttest.Nightly, 7, good)
	b.want(b.check(), fault.Rollback)
}

func TestLostState(t *testing.T) {
	state := func(b *bench) string { return filepath.Join(b.query.Dir, "trust", "state.json") }
	anchor := func(b *bench) string { return filepath.Join(b.query.Dir, "anchor.json") }
	t.Run("state-alone", func(t *testing.T) {
		b := newBench(t)
		b.Release(manifesttest.Stable, 41, old)
		if err := os.Remove(state(b)); err != nil {
			t.Fatal(err)
		}
		r := b.check()
		b.want(r, fault.Rollback)
		if len(r.Events) == 0 || r.Events[0].Code != fault.StateRepaired {
			t.Errorf("events %v, want state_repaired", r.Events)
		}
		if r := b.check(); len(r.Events) > 0 && r.Events[0].Code == fault.StateRepaired {
			t.Error("repaired again")
		}
	})
	t.Run("both", func(t *testing.T) {
		b := newBench(t)
		for _, path := range []string{state(b), anchor(b)} {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		before := files(t, b.query.Dir)
		b.want(b.check(), fault.StateLost)
		if diff := cmp.Diff(before, files(t, b.query.Dir)); diff != "" {
			t.Errorf("something was written:\n%s", diff)
		}
	})
	t.Run("no-directory", func(t *testing.T) {
		b := newBench(t)
		b.query.Dir = filepath.Join(t.TempDir(), "never-made")
		b.want(b.check(), fault.StateLost)
		if _, err := os.Stat(b.query.Dir); !errors.Is(err, fs.ErrNotExist) {
			t.Error("the directory was made")
		}
	})
	t.Run("first-root-damaged", func(t *testing.T) {
		b := newBench(t)
		root := filepath.Join(b.query.Dir, "trust", "root", "000001.json")
		if err := os.WriteFile(root, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		first := files(t, b.Dir)[filepath.Join(b.Dir, filepath.FromSlash(tree.Root(1)))]
		b.Remove(tree.Root(1))
		b.want(b.check(), fault.RootBehind)
		b.Put(tree.Root(1), []byte(first))
		b.want(b.check(), fault.Same)
	})
	t.Run("stored-manifest-changed", func(t *testing.T) {
		b := newBench(t)
		path := filepath.Join(b.query.Dir, "trust", "m", "acme", "stable.json")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Replace(text, []byte(`"payload": "e`), []byte(`"payload": "f`), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		b.Release(manifesttest.Stable, 41, old)
		b.want(b.check(), fault.Rollback)
		b.Release(manifesttest.Stable, 42, good)
		b.want(b.check(), fault.Same)
	})
}
