package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"shoal/agent"
	"shoal/internal/control"
	"shoal/manifest"
)

// machine is one of the fleet: a directory, a running program, an agent.
type machine struct {
	name   string
	dir    string
	target string
	addr   string // of the program
	env    []string
	agent  *process

	// site is set where no network reaches the publisher: such a machine joins from a
	// bundle, knows no source, no tracker and no LAN, and of peers only those named here.
	site  bool
	peers []string // host:port
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
		m := f.newMachine()
		m.site = f.hasSite() && i == f.cfg.Agents-1
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
	f.showPage()
	return nil
}

// newMachine adds the next machine.
func (f *fleet) newMachine() *machine {
	name := fmt.Sprintf("m%d", len(f.machines)+1)
	m := &machine{name: name, dir: f.path(name)}
	f.machines = append(f.machines, m)
	return m
}

// online are the machines that reach the publisher; the first is the canary.
func (f *fleet) online() []*machine {
	n := len(f.machines)
	for n > 0 && f.machines[n-1].site {
		n--
	}
	return f.machines[:n]
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
	args := m.args("agent", "join", f.link, "--fleet-key", f.publisher.fleet, "--target", m.target, "--yes")
	if m.site {
		link, err := withoutPlaces(f.link)
		if err != nil {
			return err
		}
		args = m.args("agent", "join", link, "--from", f.publisher.firstBundle, "--fleet-key", f.publisher.fleet, "--target", m.target, "--yes")
	}
	if err := f.must(ctx, nil, m.env, args...); err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	if m.agent, err = f.background(m.log(f), m.env, nil, m.args("agent", "run")...); err != nil {
		return err
	}
	err = until(ctx, bound, func() (bool, error) {
		if !m.agent.Running() {
			return true, nil
		}
		s, err := m.app(ctx)
		if err != nil {
			return false, err
		}
		return s.Version == oldVersion && s.State == manifest.StateHealthy || m.site && s.Version == newVersion, fmt.Errorf("it is %s on %q", s.State, s.Version)
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
		"SHOAL_DISK_RESERVE=0", "SHOAL_DISK_CACHE=0", "SHOAL_LOG_LEVEL=info", withoutLAN("sources"),
		"SHOAL_REPORTS_EVERY=1s", // waves wait for reports, and nobody wants to wait for waves
	}
	if len(m.peers) > 0 {
		env = append(env, "SHOAL_PEERS="+strings.Join(m.peers, ","))
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

// withoutLAN is the variable that keeps an agent ("sources") or the publisher ("serve")
// from sending anything to the networks of this computer.
func withoutLAN(where string) string { return "SHOAL_" + strings.ToUpper(where) + "_LAN_ENABLED=false" }

// healthBound is by when a started program must be well. A crashing one is put back
// after it, so it is what the last refusal takes.
const healthBound = 6 * time.Second

// ask asks the running agent, and reads its answer into v.
func (m *machine) ask(ctx context.Context, command string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := control.Dial(ctx, filepath.Join(m.dir, "state"), "agent")
	if err != nil {
		return err
	}
	return c.Do(ctx, command, nil, nil, v)
}

// status asks the running agent how it stands.
func (m *machine) status(ctx context.Context) (agent.Status, error) {
	var s agent.Status
	err := m.ask(ctx, "status", &s)
	if err == nil && len(s.Apps) != 1 {
		err = fmt.Errorf("it keeps %d apps", len(s.Apps))
	}
	return s, err
}

// app is the status of the one app.
func (m *machine) app(ctx context.Context) (agent.AppStatus, error) {
	s, err := m.status(ctx)
	if err != nil {
		return agent.AppStatus{}, err
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
