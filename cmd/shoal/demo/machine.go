package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"shoal/agent"
	"shoal/internal/control"
)

// machine is one of the fleet: a directory, a running program, an agent.
type machine struct {
	name   string
	dir    string
	target string
	addr   string // of the program
	env    []string
	agent  *process
}

// args puts the machine's own places before a command.
func (m *machine) args(args ...string) []string {
	return append([]string{"--config", filepath.Join(m.dir, "agent.yaml"), "--state", filepath.Join(m.dir, "state")}, args...)
}

func (m *machine) log(f *fleet) string { return f.path("logs", m.name+"-agent.log") }

// join installs the old version on every machine, starts it, and has an agent join the
// channel and run.
func (f *fleet) join(ctx context.Context) error {
	var err error
	if f.supervisor, err = newSupervisor(f.group); err != nil {
		return err
	}
	for i := range f.cfg.Agents {
		name := fmt.Sprintf("m%d", i+1)
		f.machines = append(f.machines, &machine{name: name, dir: f.path(name)})
	}
	// All programs are in place before anything is started: a child that is forked while
	// a program is being written holds it open for a moment, and it could not be run.
	if err := f.each(func(m *machine) error { return m.install(f.buildPath(oldVersion)) }); err != nil {
		return err
	}
	if err := f.each(func(m *machine) error { return f.joinOne(ctx, m) }); err != nil {
		return err
	}
	where := f.machines[0].addr
	if n := len(f.machines); n > 1 {
		where += " … " + f.machines[n-1].addr[strings.LastIndexByte(f.machines[n-1].addr, ':')+1:]
	}
	f.say("  app        %q %s is running on %s   http://%s", app, oldVersion, count(len(f.machines), "machine"), where)
	return nil
}

// install puts a build where the machine has its program.
func (m *machine) install(build string) error {
	m.target = filepath.Join(m.dir, "app", app)
	if err := os.MkdirAll(filepath.Dir(m.target), 0o700); err != nil {
		return err
	}
	return copyFile(m.target, build)
}

func (f *fleet) joinOne(ctx context.Context, m *machine) error {
	var err error
	if m.addr, err = f.supervisor.Add(m.name, m.target, f.path("logs", m.name+"-program.log")); err != nil {
		return err
	}
	if m.env, err = m.settings(f); err != nil {
		return err
	}
	if err := f.must(ctx, nil, m.env, m.args("agent", "join", f.link, "--fleet-key", f.publisher.fleet, "--target", m.target, "--yes")...); err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	if m.agent, err = f.background(m.log(f), m.env, nil, m.args("agent", "run")...); err != nil {
		return err
	}
	err = until(ctx, bound, func() (bool, error) {
		if !m.agent.Running() {
			return true, nil
		}
		s, err := m.status(ctx)
		if err != nil {
			return false, err
		}
		return s.Version == oldVersion && s.State == "healthy", fmt.Errorf("it is %s on %q", s.State, s.Version)
	})
	if err == nil && !m.agent.Running() {
		err = fmt.Errorf("it ended: %v", m.agent.err)
	}
	if err != nil {
		return fmt.Errorf("starting the agent of %s: %w\n%s", m.name, err, tail(m.log(f), 8))
	}
	return nil
}

// settings is the machine's configuration beyond what joining writes, as variables:
// how its program is controlled and checked, and what suits a computer that is a fleet.
func (m *machine) settings(f *fleet) ([]string, error) {
	order := func(action string) []string {
		return []string{f.cfg.Exe, "demo", "service", action, f.supervisor.URL(m.name)}
	}
	type object = map[string]any
	apps, err := json.Marshal([]object{{
		"name": app, "channel": channel, "target": m.target,
		"service": object{"command": object{
			"start": order("start"), "stop": order("stop"), "restart": order("restart"), "status": order("status"),
		}},
		"health": object{
			"type": "http", "url": "http://" + m.addr + "/version", "timeout": healthBound.String(), "interval": "200ms", "successes": 2,
		},
	}})
	if err != nil {
		return nil, err
	}
	env := []string{
		"SHOAL_APPS=" + string(apps), "SHOAL_LISTEN=127.0.0.1:0",
		"SHOAL_DISK_RESERVE=0", "SHOAL_DISK_CACHE=0", "SHOAL_LOG_LEVEL=info",
	}
	if m == f.machines[0] {
		labels, err := json.Marshal([]object{{"name": "ring", "value": canaryRing}})
		if err != nil {
			return nil, err
		}
		env = append(env, "SHOAL_LABELS="+string(labels))
	}
	return env, nil
}

// healthBound is by when a started program must be well. A crashing one is put back
// after it, so it is what the last refusal takes.
const healthBound = 6 * time.Second

// status asks the running agent how the app stands.
func (m *machine) status(ctx context.Context) (agent.AppStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := control.Dial(ctx, filepath.Join(m.dir, "state"), "agent")
	if err != nil {
		return agent.AppStatus{}, err
	}
	var s agent.Status
	if err := c.Do(ctx, "status", nil, nil, &s); err != nil {
		return agent.AppStatus{}, err
	}
	if len(s.Apps) != 1 {
		return agent.AppStatus{}, fmt.Errorf("it keeps %d apps", len(s.Apps))
	}
	return s.Apps[0], nil
}

// each does one thing on all machines at once.
func (f *fleet) each(do func(m *machine) error) error { return each(f.machines, do) }

// each does one thing on some machines at once.
func each(on []*machine, do func(m *machine) error) error {
	var g errgroup.Group
	for _, m := range on {
		g.Go(func() error { return do(m) })
	}
	return g.Wait()
}

// update publishes the new version and shows how the machines take it.
func (f *fleet) update(ctx context.Context) error {
	out, err := f.publish(ctx, newVersion)
	if err != nil {
		return err
	}
	began := time.Now()
	uplink := "without a limit"
	if f.cfg.Limit != "" {
		uplink = "at most " + f.cfg.Limit + "/s"
	}
	f.say("  publish    %s %s to %s: %s MB, sequence %d, signed by %d of %d; the publisher gives %s\n",
		app, newVersion, channel, megabytes(f.size), out.Sequence, len(out.SignedBy), out.Threshold, uplink)
	var names []string
	for _, m := range f.machines {
		names = append(names, m.name)
	}
	screen := newProgress(f.cfg.Talk, f.cfg.Fancy, names, f.size)
	var mu sync.Mutex // guards the screen and the last moment
	var last time.Duration
	show := func(v view) {
		mu.Lock()
		defer mu.Unlock()
		screen.show(v)
		if v.confirmed {
			last = max(last, time.Since(began))
		}
	}
	err = f.each(func(m *machine) error {
		v := view{name: m.name, state: "waiting", total: f.size}
		show(v)
		u, err := m.update(ctx, func(p agent.Progress) {
			v.state, v.done = string(p.State), p.Done
			v.origin, v.peers = split(p.Bytes)
			show(v)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if u.Version != newVersion || u.State != "healthy" || u.Update == nil {
			return fmt.Errorf("%s is %s on %q", m.name, u.State, u.Version)
		}
		v.done, v.confirmed, v.finalVersion = f.size, true, u.Version
		v.origin, v.peers = split(u.Update.Bytes)
		show(v)
		return nil
	})
	screen.end()
	if err != nil {
		return fmt.Errorf("updating to %s: %w\n%s", newVersion, err, tail(f.machines[0].log(f), 8))
	}
	f.result.Seconds = round(last.Seconds(), 2)
	return f.count(ctx)
}

// update has the machine's agent look for a release and install it, as "agent update"
// does, and tells how it goes on.
func (m *machine) update(ctx context.Context, progress func(agent.Progress)) (agent.Updated, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	h, err := agent.Connect(ctx, agent.Config{StateDir: filepath.Join(m.dir, "state")})
	if err != nil {
		return agent.Updated{}, err
	}
	defer h.Close()
	if !h.Serving() {
		return agent.Updated{}, fmt.Errorf("its agent ended: %v", m.agent.err)
	}
	all, err := h.Update(ctx, nil, agent.Choice{}, true, progress)
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("it keeps %d apps", len(all))
	}
	if err != nil {
		return agent.Updated{}, err
	}
	return all[0], all[0].Error.Err()
}

// split is what came from the publisher, and what from other machines.
func split(b agent.Bytes) (origin, peers int64) { return b.Origin + b.Webseed, b.LAN + b.WAN }

// count adds up what the machines say of the update, and asks their programs who they are.
func (f *fleet) count(ctx context.Context) error {
	r := &f.result
	for _, m := range f.machines {
		var s agent.Status
		if err := f.must(ctx, &s, m.env, m.args("agent", "status")...); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if len(s.Apps) != 1 || s.Apps[0].Update == nil {
			return fmt.Errorf("%s does not tell what its update cost", m.name)
		}
		u := s.Apps[0].Update
		one := Machine{Name: m.name, Address: m.addr, Seconds: round(u.Seconds, 2)}
		one.OriginBytes, one.PeerBytes = split(u.Bytes)
		r.Machines = append(r.Machines, one)
		r.OriginBytes += one.OriginBytes
		r.PeerBytes += one.PeerBytes
		if v, err := askVersion(ctx, m.addr); v == newVersion {
			r.Updated++
		} else {
			f.problem("%s answers %q (%v) after the update, not %s", m.name, v, err, newVersion)
		}
		if got := one.OriginBytes + one.PeerBytes; got < f.size {
			f.problem("%s accounts for %d bytes of a program of %d", m.name, got, f.size)
		}
	}
	r.Copies = round(float64(r.OriginBytes)/float64(f.size), 3)
	whole := f.size * int64(r.Agents)
	f.say("\n  %d of %d on %s in %.1f s.  The publisher sent %s MB instead of %s MB (%.0f %% saved).",
		r.Updated, r.Agents, newVersion, r.Seconds, megabytes(r.OriginBytes), megabytes(whole), 100*(1-float64(r.OriginBytes)/float64(whole)))
	return nil
}

func copyFile(dst, src string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}
