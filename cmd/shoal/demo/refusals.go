package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"shoal/internal/durable"
	"shoal/manifest"
	"shoal/manifest/tree"
)

// want is how something that must not work has to end.
type want struct {
	name string // Refusal.Case
	what string // for people
	code string
	exit int
	// why says more, from the detail of a machine's answer.
	why func(detail map[string]any) string
}

var (
	tooFew = want{"too-few-signatures", "a release signed with one stolen key", "threshold", 2, func(d map[string]any) string {
		return fmt.Sprintf("refused: %v of %v signatures", d["have"], d["want"])
	}}
	older = want{"old-release", "an old release offered again", "rollback", 3, func(d map[string]any) string {
		return fmt.Sprintf("refused: it is %v, trusted is %v", d["found"], d["want"])
	}}
	crashes = want{"crashes-at-start", app + " " + badVersion + ", which crashes on start", "health_failed", 7, func(map[string]any) string {
		return "m1, the canary, reverted to " + newVersion
	}}
	// The other machines never get to it; it is the same case, and not counted again.
	spared = want{"", "the same, on every other machine", "held", 11, func(map[string]any) string {
		return "held: the rollout stopped by itself"
	}}
)

// refusals shows what must not work. In the first two, whoever holds the publisher's
// web server puts something else in the place of the newest manifest; the last one is
// rightly signed by a publisher who did not test it.
func (f *fleet) refusals(ctx context.Context) error {
	f.say("\n  Now three things that must not work:")
	newest := f.newest()
	good, err := os.ReadFile(newest)
	if err != nil {
		return err
	}
	stolen, err := f.stolenKey(ctx)
	if err != nil {
		return err
	}
	for _, attack := range []struct {
		want
		envelope []byte
		on       []*machine
	}{{tooFew, stolen, f.online()}, {older, f.publisher.first, f.machines}} {
		if err := durable.WriteFile(newest, attack.envelope, 0o644); err != nil {
			return err
		}
		if err := f.refuse(ctx, attack.on, attack.want, "check"); err != nil {
			return err
		}
	}
	if err := durable.WriteFile(newest, good, 0o644); err != nil {
		return err
	}
	if err := f.crash(ctx); err != nil {
		return err
	}
	if len(f.result.Problems) == 0 {
		f.say("  %s %s answered on every machine, %d of %d, after each of them.", app, newVersion, len(f.machines), len(f.machines))
	}
	return nil
}

// crash publishes a release that crashes, in the same two waves. The machines without a
// network never hear of it.
func (f *fleet) crash(ctx context.Context) error {
	if _, err := f.publish(ctx, badVersion, plan...); err != nil {
		return err
	}
	online := f.online()
	if err := f.refuse(ctx, online[:1], crashes, "update"); err != nil {
		return err
	}
	phase := ""
	err := until(ctx, bound, func() (bool, error) {
		var st struct {
			Phase string `json:"phase"`
		}
		err := f.must(ctx, &st, nil, "--config", f.publisher.config, "rollout", "status")
		phase = st.Phase
		return phase == "held", err
	})
	if err != nil {
		return fmt.Errorf("waiting for the rollout of %s to be held; it is %q: %w", badVersion, phase, err)
	}
	if len(online) == 1 {
		return nil
	}
	return f.refuse(ctx, online[1:], spared, "update")
}

// newest is the file of the channel's manifest in the publisher's tree.
func (f *fleet) newest() string {
	return filepath.Join(f.publisher.store, filepath.FromSlash(tree.Manifest(manifest.Channel{App: app, Name: channel})))
}

// refuse has some machines ask, or try, and holds what they answer against w. Every
// machine has to run the new version afterwards. To those without a network what is old
// comes as a bundle.
func (f *fleet) refuse(ctx context.Context, on []*machine, w want, verb string) error {
	var mu sync.Mutex // guards answers
	answers := map[string]int{}
	r := Refusal{Case: w.name, Code: w.code, Exit: w.exit, Running: newVersion}
	var text string
	var detail map[string]any
	err := each(f.machines, func(m *machine) error {
		a := answer{Code: w.code, exit: w.exit} // of one that is not asked
		asked := slices.Contains(on, m)
		if asked {
			args := m.args("agent", verb)
			if m.site {
				args = m.args("agent", "import", f.publisher.firstBundle)
			}
			var err error
			if a, err = f.run(ctx, m.env, args...); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
		version, err := askVersion(ctx, m.addr)
		if err != nil {
			version = "nothing (" + err.Error() + ")"
		}
		mu.Lock()
		defer mu.Unlock()
		answers[fmt.Sprintf("%s, exit %d, %s answers", a.Code, a.exit, version)]++
		switch {
		case a.Code != w.code || a.exit != w.exit || version != newVersion:
			r.Code, r.Exit, r.Running = a.Code, a.exit, version
			text = a.Message
		case asked && text == "":
			text, detail = a.Message, a.Detail
		}
		return nil
	})
	if err != nil {
		return err
	}
	if w.name != "" {
		f.result.Refusals = append(f.result.Refusals, r)
	}
	if len(answers) != 1 || r.Code != w.code || r.Exit != w.exit || r.Running != newVersion {
		f.problem("%s: %v (%s), want %s, exit %d, and %s answering on every machine", w.what, answers, text, w.code, w.exit, newVersion)
		return nil
	}
	f.say("    ✓ %-38s %-39s %s, exit %d", w.what, w.why(detail), w.code, w.exit)
	return nil
}

// stolenKey is what a thief of one release key can make: the publisher's own command
// refuses to publish it, and the envelope it leaves for a second signer has one
// signature.
func (f *fleet) stolenKey(ctx context.Context) ([]byte, error) {
	dir := f.path("thief")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	args := append(f.publishArgs(thiefs), "--key", "file:"+f.publisher.keys[0].Path)
	for i, arg := range args {
		args[i] = strings.ReplaceAll(arg, f.buildPath(thiefs), f.buildPath(newVersion))
	}
	a, err := f.runIn(ctx, dir, nil, args...)
	if err != nil {
		return nil, err
	}
	if a.Code != tooFew.code || a.exit != tooFew.exit {
		f.problem("publishing with one of %d keys: %s, exit %d, want %s, exit %d", signersNeed, a.Code, a.exit, tooFew.code, tooFew.exit)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		if env, err := manifest.ParseEnvelope(b, manifest.TypeManifest); err == nil && len(env.Signatures) == 1 {
			return b, nil
		}
	}
	return nil, fmt.Errorf("publishing with one key left no envelope in %v", names)
}
