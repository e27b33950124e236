package main

import (
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/keys/keystest"
	"shoal/manifest"
	mt "shoal/manifest/manifesttest"
	"shoal/manifest/tree"
)

// TestAttackStories are the attacks that take more than one step, or end in something
// that is rightly accepted. Names are as in TestAttacks.
func TestAttackStories(t *testing.T) {
	for _, s := range []struct {
		name string
		tell func(*testing.T)
	}{
		{"T08-fast-forward", fastForward},
		{"T10-beacon-names-a-newer-one", beaconNamesANewerOne},
		{"T10-bad-beacons", badBeacons},
		{"T12-clock-at-1970", clockAt1970},
		{"T13-misdated-weak-channel", misdatedWeakChannel},
		{"T14-hole-in-the-chain", holeInTheChain},
		{"T15-old-root-to-a-newcomer", oldRootToANewcomer},
		{"T15-old-manifest-to-a-newcomer", oldManifestToANewcomer},
		{"T18-slow-metadata", slowMetadata},
		{"T18-server-that-never-ends", serverThatNeverEnds},
		{"T20-junk-beside-good-signatures", junkBesideGoodSignatures},
		{"T29-info-dicts-that-lead-elsewhere", infoDictsThatLeadElsewhere},
		{"T32-authorisation-changes-after-download", authorisationChangesAfterDownload},
		{"T33a-yank", yank},
		{"T34-state-deleted", stateDeleted},
		{"T34-state-and-anchor-deleted", stateAndAnchorDeleted},
		{"T35-torn-state", tornState},
		{"T35-killed-at-each-document", killedAtEachDocument},
		{"T36-stored-manifest-changed", storedManifestChanged},
		{"T36-stored-root-changed", storedRootChanged},
		{"T38-larger-than-anyone-has", largerThanAnyoneHas},
	} {
		t.Run(s.name, s.tell)
	}
}

// A thief of a channel's key signs the highest number there is. A new root ends it.
func fastForward(t *testing.T) {
	v := newVictim(t)
	v.channel = mt.Nightly
	stolen := v.Release(mt.Nightly, 1<<53, program)
	v.check().want(t, expected{fault.OK, 1, "1.9007199254740992", payloadHash(t, stolen), manifest.FreshNone, true})
	before := files(t, v.dir)
	v.Release(mt.Nightly, 43, program)
	v.check().want(t, expected{fault.Rollback, 1, "1.9007199254740992", payloadHash(t, stolen), manifest.FreshNone, false})
	unchanged(t, before, files(t, v.dir), 1)

	v.Rotate(mt.WithRoot(func(r *manifest.Root) { r.Channels[1].Epoch = 2 }))
	v.PutRoots()
	v.Put(tree.Manifest(mt.Nightly), stolen)
	v.check().want(t, expected{fault.Rollback, 2, "1.9007199254740992", manifest.Digest{}, manifest.FreshNone, true})
	fresh := v.Release(mt.Nightly, 1, program)
	v.check().want(t, expected{fault.OK, 2, "2.1", payloadHash(t, fresh), manifest.FreshNone, true})
	v.Put(tree.Manifest(mt.Nightly), stolen)
	v.check().want(t, expected{fault.Rollback, 2, "2.1", payloadHash(t, fresh), manifest.FreshNone, false})
	v.putOut(asItWas)
	v.update().want(t, expected{fault.Rollback, 2, "2.1", payloadHash(t, fresh), manifest.FreshNone, false})
	v.wantOut(asItWas)
}

// Somebody keeps 43 back; the beacon tells.
func beaconNamesANewerOne(t *testing.T) {
	v := newVictim(t)
	v.Now = v.Now.Add(time.Hour)
	next := v.Draft(mt.Stable, 43, program)
	v.Put(tree.Beacon(mt.Stable), v.Beacon(next))
	v.check().want(t, expected{fault.Same, 1, "1.42", v.hash, manifest.FreshBehind, true})
	v.Remove(tree.Beacon(mt.Stable)) // the stored one still speaks
	v.check().want(t, expected{fault.Same, 1, "1.42", v.hash, manifest.FreshBehind, false})
	v.Now = v.Now.Add(2 * day)
	v.check().want(t, expected{fault.Same, 1, "1.42", v.hash, manifest.FreshStale, false})
}

// A bad beacon is an event, and nothing else.
func badBeacons(t *testing.T) {
	for name, row := range map[string]struct {
		code  fault.Code
		edits []mt.Edit
	}{
		"stranger":        {fault.Threshold, []mt.Edit{mt.SignedBy("stranger")}},
		"release-keys":    {fault.Threshold, []mt.Edit{mt.SignedBy("release-1", "release-2")}},
		"another-content": {fault.Equivocation, []mt.Edit{mt.Set("manifest", manifest.Sum(nil).Prefixed())}},
		"another-channel": {fault.WrongTarget, []mt.Edit{mt.Set("channel", "nightly")}},
		"valid-too-long":  {fault.Policy, []mt.Edit{mt.Set("expires", "2026-11-12T16:00:00Z")}},
		"no-such-wave":    {fault.Policy, []mt.Edit{mt.Set("wave", 4)}},
		"null":            {fault.Malformed, []mt.Edit{mt.Set("wave", nil)}},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t)
			before := files(t, v.dir)
			v.Now = v.Now.Add(time.Hour)
			v.Put(tree.Beacon(mt.Stable), v.Beacon(v.held, row.edits...))
			got := v.check()
			got.want(t, expected{fault.Same, 1, "1.42", v.hash, manifest.FreshCurrent, false})
			if !got.has(row.code) {
				t.Errorf("events %v, want %s", got.Events, row.code)
			}
			unchanged(t, before, files(t, v.dir), 1)
		})
	}
}

func clockAt1970(t *testing.T) {
	v := newVictim(t)
	v.Now = v.Now.Add(day)
	next := v.Release(mt.Stable, 43, program)
	v.Now = time.Unix(0, 0)
	got := v.check()
	got.want(t, expected{fault.OK, 1, "1.43", payloadHash(t, next), manifest.FreshStale, true})
	if !got.has(fault.ClockBehind) {
		t.Errorf("events %v, want clock_behind", got.Events)
	}
}

// A weak channel's key dates a release decades ahead; the others go on.
func misdatedWeakChannel(t *testing.T) {
	v := newVictim(t)
	v.channel = mt.Nightly
	late := time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	misdated := v.Release(mt.Nightly, 7, program, mt.WithManifest(func(m *manifest.Manifest) { m.Issued, m.Expires = late, late.Add(day) }))
	got := v.check()
	got.want(t, expected{fault.OK, 1, "1.7", payloadHash(t, misdated), manifest.FreshNone, true})
	if !got.has(fault.ClockSkew) {
		t.Errorf("events %v, want clock_skew", got.Events)
	}
	v.channel = mt.Stable
	next := v.Release(mt.Stable, 43, program)
	v.check().want(t, expected{fault.OK, 1, "1.43", payloadHash(t, next), manifest.FreshStale, true})
	v.channel = mt.Nightly // and the next release of the weak channel corrects it
	corrected := v.Release(mt.Nightly, 8, program)
	v.check().want(t, expected{fault.OK, 1, "1.8", payloadHash(t, corrected), manifest.FreshNone, true})
}

func holeInTheChain(t *testing.T) {
	v := newVictim(t)
	before := files(t, v.dir)
	v.Rotate()
	v.Rotate()
	v.PutRoots()
	v.Remove(tree.Root(2))
	v.check().want(t, expected{fault.Same, 1, "1.42", v.hash, manifest.FreshCurrent, false})
	unchanged(t, before, files(t, v.dir), 1)
}

func oldRootToANewcomer(t *testing.T) {
	v := newStranger(t)
	env := v.Release(mt.Stable, 42, program)
	v.init("--min-root", "2")
	before := files(t, v.dir)
	v.check().want(t, expected{fault.RootBehind, 1, "0.0", manifest.Digest{}, manifest.FreshStale, false})
	v.update().want(t, expected{fault.RootBehind, 1, "0.0", manifest.Digest{}, manifest.FreshStale, false})
	v.wantOut("")
	unchanged(t, before, files(t, v.dir), 1)
	v.Rotate()
	v.PutRoots()
	v.check().want(t, expected{fault.OK, 2, "1.42", payloadHash(t, env), manifest.FreshStale, true})
}

func oldManifestToANewcomer(t *testing.T) {
	v := newStranger(t)
	v.Release(mt.Stable, 41, oldProgram)
	v.init("--min-sequence", "1.42")
	before := files(t, v.dir)
	v.check().want(t, expected{fault.Rollback, 1, "0.0", manifest.Digest{}, manifest.FreshStale, false})
	v.update().want(t, expected{fault.Rollback, 1, "0.0", manifest.Digest{}, manifest.FreshStale, false})
	v.wantOut("")
	unchanged(t, before, files(t, v.dir), 1)
	env := v.Release(mt.Stable, 42, program)
	v.check().want(t, expected{fault.OK, 1, "1.42", payloadHash(t, env), manifest.FreshStale, true})
	v.channel = mt.Nightly // the floor is every channel's
	v.Release(mt.Nightly, 7, program)
	v.check().want(t, expected{fault.Rollback, 1, "0.0", manifest.Digest{}, manifest.FreshNone, false})
}

// A server that has connected and says nothing more is given up.
func slowMetadata(t *testing.T) {
	v := newVictim(t)
	before := files(t, v.dir)
	stalled := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("{"))
		w.(http.Flusher).Flush()
		<-stalled
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(stalled) })
	v.source = srv.URL
	v.check("--timeout", "300ms").want(t, expected{fault.Unreachable, 1, "1.42", v.hash, manifest.FreshCurrent, false})
	unchanged(t, before, files(t, v.dir), 1)
}

// A server goes on sending after the last signed byte; nobody listens.
func serverThatNeverEnds(t *testing.T) {
	const most = 256 << 20 // where the test itself stops, should nobody hang up
	v := newVictim(t)
	serve := http.FileServer(http.Dir(v.Dir))
	sent := make(chan int, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/data/") {
			serve.ServeHTTP(w, r)
			return
		}
		chunk, n := make([]byte, 64<<10), 0
		for n < most {
			written, err := w.Write(chunk)
			if n += written; err != nil {
				break
			}
		}
		sent <- n
	}))
	t.Cleanup(srv.Close)
	v.source = srv.URL
	v.putOut(asItWas)
	v.update().want(t, expected{fault.LengthExceeded, 1, "1.42", v.hash, manifest.FreshCurrent, false})
	v.wantOut(asItWas)
	if n := <-sent; n > most/4 {
		t.Errorf("%d bytes were taken for a file of %d", n, len(program))
	}
}

func junkBesideGoodSignatures(t *testing.T) {
	for name, sig := range map[string][]byte{
		"empty":           {},
		"garbage":         []byte("garbage"),
		"rsa":             []byte("SSHSIG\x00\x00\x00\x01\x00\x00\x00\x07ssh-rsa"),
		"wrong-namespace": keystest.Sign(t, "file", []byte("x"), keystest.New(t, "release-3"))[0].Sig,
	} {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t)
			for _, id := range []keys.ID{v.Key("release-3").Public().ID(), "SHA256:nobody"} {
				next := v.Release(mt.Stable, 43, program, mt.Envelope(func(e *manifest.Envelope) {
					e.Signatures = append([]keys.Entry{{KeyID: id, Sig: sig}}, e.Signatures...)
				}))
				v.check()
				v.update().want(t, expected{fault.Same, 1, "1.43", payloadHash(t, next), manifest.FreshStale, false})
				v.wantOut(string(program))
			}
		})
	}
	t.Run("not-base64", func(t *testing.T) {
		v := newVictim(t)
		next := v.Release(mt.Stable, 43, program)
		var env map[string]any
		if err := json.Unmarshal(next, &env); err != nil {
			t.Fatal(err)
		}
		env["signatures"] = append(env["signatures"].([]any), map[string]any{"keyid": "SHA256:x", "sig": "%%%"})
		b, err := json.Marshal(env)
		if err != nil {
			t.Fatal(err)
		}
		v.Put(tree.Manifest(mt.Stable), b)
		v.check().want(t, expected{fault.OK, 1, "1.43", payloadHash(t, next), manifest.FreshStale, true})
	})
}

// The info dict is the very one that was signed, and of a shape that is not allowed.
func infoDictsThatLeadElsewhere(t *testing.T) {
	pieces := strings.Repeat("p", 20*((len(program)+16383)/16384))
	length := len(program)
	tail := fmt.Sprintf("12:piece lengthi16384e6:pieces%d:%s", len(pieces), pieces)
	for name, dict := range map[string]string{
		"path":         fmt.Sprintf("d6:lengthi%de4:name4:acme4:pathl2:..1:xe%se", length, tail),
		"symlink-path": fmt.Sprintf("d6:lengthi%de4:name4:acme%s12:symlink pathl1:xee", length, tail),
		"files":        fmt.Sprintf("d5:filesld6:lengthi%de4:pathl2:..1:xeee4:name4:acme%se", length, tail),
		"name":         fmt.Sprintf("d6:lengthi%de4:name4:../x%se", length, tail),
		"two-lengths":  fmt.Sprintf("d6:lengthi%de4:name4:acme%se", length+1, tail),
	} {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t)
			b := []byte(dict)
			next := v.Release(mt.Stable, 43, program, mt.WithManifest(func(m *manifest.Manifest) {
				p := &m.Artifacts[0].Payloads[0]
				p.InfoSHA256, p.Infohash = manifest.Sum(b), manifest.Infohash(sha1.Sum(b))
			}))
			v.Put(tree.Info(manifest.Sum(b)), b)
			v.check().want(t, expected{fault.OK, 1, "1.43", payloadHash(t, next), manifest.FreshStale, true})
			v.putOut(asItWas)
			v.update().want(t, expected{fault.BadInfo, 1, "1.43", payloadHash(t, next), manifest.FreshStale, false})
			v.wantOut(asItWas)
		})
	}
}

// 43 is being downloaded when 44, which blocks it, comes to be trusted: as if somebody
// had imported it meanwhile.
func authorisationChangesAfterDownload(t *testing.T) {
	v := newVictim(t)
	next := agenttest.Large("43", 0)
	v.Release(mt.Stable, 43, next)
	files43 := http.FileServer(http.Dir(v.Dir))
	later := newStranger(t)
	later.Release(mt.Stable, 44, program, mt.WithManifest(func(m *manifest.Manifest) {
		m.Blocked = []manifest.Blocked{{SHA256: manifest.Sum(next), Reason: "data loss"}}
	}))
	later.init()
	later.check()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/data/") {
			if err := os.CopyFS(v.dir+".new", os.DirFS(later.dir)); err != nil {
				t.Error(err)
			}
			for _, name := range []string{"trust/m/acme/stable.json", "trust/state.json", "anchor.json"} {
				if err := os.Rename(filepath.Join(v.dir+".new", name), filepath.Join(v.dir, name)); err != nil {
					t.Error(err)
				}
			}
		}
		files43.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	v.source = srv.URL
	v.putOut(asItWas)
	got := v.update()
	if got.Code != fault.Blocked || got.Sequence != 44 {
		t.Errorf("code %s at %d, want blocked at 44: %s", got.Code, got.Sequence, got.said())
	}
	v.wantOut(asItWas)
}

// A bad release is taken back by the next one.
func yank(t *testing.T) {
	v := newVictim(t)
	v.update().want(t, expected{fault.Same, 1, "1.42", v.hash, manifest.FreshCurrent, false})
	v.wantOut(string(program))
	back := v.Release(mt.Stable, 43, oldProgram, mt.WithManifest(func(m *manifest.Manifest) {
		m.Blocked = []manifest.Blocked{{SHA256: manifest.Sum(program), Reason: "data loss"}}
	}))
	got := v.update()
	got.want(t, expected{fault.OK, 1, "1.43", payloadHash(t, back), manifest.FreshStale, true})
	if !got.has(fault.RunningBlocked) {
		t.Errorf("events %v, want running_blocked", got.Events)
	}
	v.wantOut(string(oldProgram))
	// What is blocked is not written, whoever offers it.
	v.Release(mt.Stable, 44, program, mt.WithManifest(func(m *manifest.Manifest) {
		m.Blocked = []manifest.Blocked{{SHA256: manifest.Sum(oldProgram), Reason: "data loss"}}
	}), mt.Set("blocked.0.sha256", manifest.Sum(program).String()))
	if got := v.update(); got.Code != fault.Blocked || got.Sequence != 44 {
		t.Errorf("code %s at %d, want blocked at 44", got.Code, got.Sequence)
	}
	v.wantOut(string(oldProgram))
}

func largerThanAnyoneHas(t *testing.T) {
	v := newVictim(t)
	next := v.Release(mt.Stable, 43, program, mt.WithManifest(func(m *manifest.Manifest) {
		m.Artifacts[0].Length, m.Artifacts[0].Payloads[0].Length = 1<<52, 1<<52
	}))
	v.putOut(asItWas)
	v.update().want(t, expected{fault.Quota, 1, "1.43", payloadHash(t, next), manifest.FreshStale, true})
	v.wantOut(asItWas)
}
