package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	bound = 2 * time.Minute // for each step: far above what it takes, so that a stuck demo ends
)

// publisher is the demo's publisher.
type publisher struct {
	config string
	store  string // directory of static files
	keys   []keyFile
	fleet  string // file of the fleet's key
	first  []byte // the envelope of the first release
	proc   *process

	firstBundle string // file of the first release, for machines without a network
}

type keyFile struct {
	Path string `json:"path"`
	ID   string `json:"id"`
}

// answer is what every command says with -o json: its result, or its error.
type answer struct {
	Code    string         `json:"code"`
	Message string         `json:"message"`
	Detail  map[string]any `json:"detail"`
	exit    int
	raw     []byte
}

// run runs a command with -o json. That the command fails is no error here; exit and
// Code say how it ended.
func (f *fleet) run(ctx context.Context, env []string, args ...string) (answer, error) {
	return f.runIn(ctx, f.dir.path, env, args...)
}

// runIn is run in a directory.
func (f *fleet) runIn(ctx context.Context, dir string, env []string, args ...string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	cmd := f.shoal(env, append(args, "-o", "json")...)
	cmd.Dir = dir
	res, err := f.group.Run(ctx, cmd)
	if err != nil {
		return answer{}, fmt.Errorf("running shoal %s: %w", strings.Join(args, " "), err)
	}
	a := answer{exit: res.exit, raw: res.stdout}
	if len(res.stdout) > 0 {
		if err := json.Unmarshal(res.stdout, &a); err != nil {
			return a, fmt.Errorf("running shoal %s: its answer %q: %w", strings.Join(args, " "), res.stdout, err)
		}
	}
	if a.Message == "" {
		a.Message = strings.TrimSpace(string(res.stderr))
	}
	return a, nil
}

// must runs a command that has to succeed, and reads its answer into v unless v is nil.
func (f *fleet) must(ctx context.Context, v any, env []string, args ...string) error {
	a, err := f.run(ctx, env, args...)
	if err != nil {
		return err
	}
	if a.exit != 0 {
		return fmt.Errorf("shoal %s ended with exit status %d: %s %s", strings.Join(args, " "), a.exit, a.Code, a.Message)
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(a.raw, v); err != nil {
		return fmt.Errorf("shoal %s: its answer %q: %w", strings.Join(args, " "), a.raw, err)
	}
	return nil
}

// cleanEnv is the environment without what would configure Shoal or send loopback
// traffic through a proxy.
func cleanEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch upper := strings.ToUpper(name); {
		case strings.HasPrefix(upper, "SHOAL_"), strings.HasSuffix(upper, "_PROXY"), upper == "STATE_DIRECTORY", upper == "CACHE_DIRECTORY", upper == "CREDENTIALS_DIRECTORY":
		default:
			env = append(env, v)
		}
	}
	return env
}

// build makes the three releases of the program.
func (f *fleet) build(ctx context.Context) error {
	f.say("shoal demo  A publisher and %s, all on this computer, in %s", count(f.cfg.Agents, "machine"), f.dir.path)
	var sizes [3]int64
	var g errgroup.Group
	for i, r := range []struct {
		version string
		crash   bool
		size    int64
	}{{oldVersion, false, f.cfg.Size}, {newVersion, false, f.cfg.Size}, {badVersion, true, 0}} {
		g.Go(func() error {
			path := f.buildPath(r.version)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return err
			}
			var err error
			sizes[i], err = writePayload(path, f.cfg.Exe, Trailer{App: app, Version: r.version, Crash: r.crash}, r.size)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("making the demo's program: %w", err)
	}
	f.size = sizes[1]
	f.result.ArtifactBytes = f.size
	return os.Mkdir(f.path("logs"), 0o700)
}

// publishFirst makes the fleet and its first release.
func (f *fleet) publishFirst(ctx context.Context) error {
	p := &f.publisher
	p.config = f.path("publisher", "publisher.yaml")
	var made struct {
		RootKeys    []keyFile `json:"root_keys"`
		ReleaseKeys []keyFile `json:"release_keys"`
		FleetKey    string    `json:"fleet_key"`
		FleetKeyID  string    `json:"fleet_key_id"`
	}
	if err := f.must(ctx, &made, nil, "--config", p.config, "init", "--app", app, "--channel", channel,
		"--threshold", fmt.Sprint(signersNeed), "--dir", filepath.Dir(p.config), "--no-passphrase", "--beacon"); err != nil {
		return err
	}
	p.keys, p.fleet = made.ReleaseKeys, made.FleetKey
	f.say("  keys       root key %s  release keys %s   made just now", ids(made.RootKeys[:1]), ids(made.ReleaseKeys))
	f.say("  fleet key  %s: every connection is TLS, and strangers get nothing", made.FleetKeyID)
	if _, err := f.publish(ctx, oldVersion); err != nil {
		return err
	}
	var err error
	if p.first, err = os.ReadFile(f.newest()); err == nil && f.hasSite() {
		p.firstBundle, err = f.bundle(ctx)
	}
	return err
}

type published struct {
	Sequence int64  `json:"sequence"`
	Tree     string `json:"tree"`
	SignedBy []struct {
		ID string `json:"id"`
	} `json:"signed_by"`
	Threshold int `json:"threshold"`
}

func (f *fleet) publishArgs(version string) []string {
	return []string{"--config", f.publisher.config, "publish", "--version", version, "--channel", channel,
		"--platform", runtime.GOOS + "/" + runtime.GOARCH + "=" + f.buildPath(version)}
}

// publish publishes a build, signed by every release key; without a plan, to everyone at
// once.
func (f *fleet) publish(ctx context.Context, version string, plan ...string) (published, error) {
	var out published
	err := f.must(ctx, &out, nil, append(f.publishArgs(version), plan...)...)
	f.publisher.store = out.Tree
	return out, err
}

// serve starts the publisher, and makes the link by which machines join.
func (f *fleet) serve(ctx context.Context) error {
	p := &f.publisher
	args := []string{"--config", p.config, "serve", "--listen", "127.0.0.1:0", "--swarm", "127.0.0.1:0", "-o", "jsonl"}
	if f.cfg.Limit != "" {
		args = append(args, "--up", f.cfg.Limit)
	}
	log := f.path("logs", "serve.log")
	out, err := os.Create(f.path("logs", "serving.json"))
	if err != nil {
		return err
	}
	defer out.Close() // the process has its own
	if p.proc, err = f.background(log, []string{withoutLAN("serve")}, out, args...); err != nil {
		return err
	}
	var serving struct {
		URL   string `json:"url"`
		Swarm string `json:"swarm"`
		Page  string `json:"page"`
	}
	err = until(ctx, bound, func() (bool, error) {
		b, err := os.ReadFile(out.Name())
		if err == nil {
			err = json.Unmarshal(b, &serving)
		}
		return err == nil || !p.proc.Running(), err
	})
	if err == nil && !p.proc.Running() {
		err = p.proc.err
	}
	if err != nil {
		return fmt.Errorf("starting the publisher: %w\n%s", err, tail(log, 8))
	}
	var made struct {
		Link string `json:"link"`
	}
	// Where it serves is known only now: port 0 is whatever was free.
	env := []string{"SHOAL_SERVE_PUBLIC_URL=" + serving.URL, "SHOAL_SERVE_SWARM=" + serving.Swarm}
	if err := f.must(ctx, &made, env, "--config", p.config, "link", "create", "--channel", channel); err != nil {
		return err
	}
	f.link = made.Link
	if serving.Page == "" {
		return nil
	}
	var login struct {
		URL string `json:"url"`
	}
	// As a viewer: what is shown here is nobody's to steer.
	if err := f.must(ctx, &login, nil, "--config", p.config, "fleet", "login", "--viewer"); err != nil {
		return err
	}
	f.page = login.URL
	if f.cfg.Open {
		f.browser = openPage(f.page) // it takes its time, as joining does
	}
	return nil
}

// background starts a command that runs on, and logs to a file. stdout may be nil.
func (f *fleet) background(log string, env []string, stdout *os.File, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the process has its own
	cmd := f.shoal(env, args...)
	cmd.Stdout, cmd.Stderr = stdout, out
	p, err := f.group.Start(cmd, nil)
	if err != nil {
		return nil, fmt.Errorf("starting shoal %s: %w", strings.Join(args, " "), err)
	}
	return p, nil
}

func ids(keys []keyFile) string {
	var s []string
	for _, k := range keys {
		s = append(s, short(k.ID))
	}
	return strings.Join(s, ", ")
}

// short is the beginning of a key id, for people.
func short(id string) string {
	if len(id) > 13 {
		return id[:13] + "…"
	}
	return id
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
