package install

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kardianos/service"

	"shoal/agent/self"
	"shoal/internal/fault"
)

func text(t *testing.T, o Options) string {
	t.Helper()
	units, err := Text(o)
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, u := range units {
		all += "### " + u.Name + "\n" + u.Text
	}
	return all
}

// What a service may do is read here by whoever changes it.
func TestUnits(t *testing.T) {
	onLinux(t)
	rows := []struct {
		name string
		o    Options
	}{
		{"agent-that-is-an-app", Options{
			Program: "/opt/shoal/shoal", FleetKey: "/etc/shoal/fleet.key", Targets: []string{"/opt/acme/acme", "/opt/shoal/shoal", "/opt/acme/tool"}, Self: true,
		}},
		{"agent-from-a-package", Options{Program: "/usr/bin/shoal", Targets: []string{"/opt/acme/acme"}}},
		{"places-of-its-own", Options{
			Program: "/home/me/so it is/$shoal%n", Config: `/home/me/a"b.yaml`, State: "/srv/state dir", Targets: []string{"/srv/a b/acme"}, Self: true,
		}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("testdata", r.name+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), text(t, r.o)); d != "" {
				t.Errorf("-expected +found:\n%s", d)
			}
		})
	}
}

// The unit in the packages is the one that is written here, for no app.
func TestPackagedUnit(t *testing.T) {
	onLinux(t)
	packaged, err := os.ReadFile(filepath.Join("..", "..", "deploy", "systemd", agentUnit))
	if err != nil {
		t.Fatal(err)
	}
	units, err := Text(Options{Program: "/usr/bin/shoal"})
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(string(packaged), unitHead) {
		t.Error("the packaged unit says that shoal agent install wrote it")
	}
	_, want, _ := strings.Cut(units[0].Text, "[Unit]")
	_, found, _ := strings.Cut(string(packaged), "[Unit]")
	if d := cmp.Diff(want, found); d != "" {
		t.Errorf("-expected +found:\n%s", d)
	}
}

func onLinux(t *testing.T) {
	t.Helper()
	if _, err := Text(Options{Program: "/opt/shoal/shoal"}); errors.Is(err, fault.Usage) {
		t.Skip("skipped: there are no units on this system")
	}
}

// systemd itself has nothing to say against the units.
func TestUnitsAreGoodToSystemd(t *testing.T) {
	onLinux(t)
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("skipped: there is no systemd-analyze here")
	}
	dir := t.TempDir()
	o := Options{Program: "/opt/shoal/shoal", FleetKey: "/etc/shoal/fleet.key", Targets: []string{"/opt/a b/acme", "/opt/shoal/shoal"}, Self: true}
	units, err := Text(o)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"verify", "--man=no"}
	for _, u := range units {
		// It wants to see the programs, which are nowhere.
		content := strings.NewReplacer("/opt/shoal/shoal", "/bin/true", "/opt/shoal/guard", "/bin/true").Replace(u.Text)
		path := filepath.Join(dir, u.Name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	if out, err := exec.Command(analyze, args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze %s: %v\n%s", args, err, out)
	}
}

func TestPathsThatCannotBe(t *testing.T) {
	onLinux(t)
	rows := []struct {
		name string
		o    Options
		want fault.Code
	}{
		{"among-temporary-files", Options{Program: "/tmp/shoal"}, fault.Config},
		{"target-among-temporary-files", Options{Program: "/opt/shoal", Targets: []string{"/var/tmp/x/acme"}}, fault.Config},
		{"line-break", Options{Program: "/opt/a\nExecStartPre=/bin/sh"}, fault.Config},
		{"relative", Options{Program: "shoal"}, fault.Config},
		{"replaces-itself-among-everybodys-programs", Options{Program: "/usr/local/bin/shoal", Targets: []string{"/usr/local/bin/shoal"}, Self: true}, fault.UnsafePath},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if _, err := Text(r.o); !errors.Is(err, r.want) {
				t.Errorf("%v, want %s", err, r.want)
			}
		})
	}
}

// machine is one with a systemctl that writes down what it is asked.
type machine struct {
	t   *testing.T
	dir string
	o   Options
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	onLinux(t)
	home := t.TempDir()
	m := &machine{t, home, Options{
		Program: filepath.Join(home, "shoal"), UnitDir: filepath.Join(home, "units"), Self: true, temporary: []string{"/nowhere"},
	}}
	m.o.Targets = []string{m.o.Program}
	m.write("shoal", "#!/bin/sh\n", 0o755)
	m.write("systemctl", "#!/bin/sh\necho \"$@\" >> "+home+"/calls\n[ ! -e "+home+"/broken ]\n", 0o755)
	if err := os.Mkdir(m.o.UnitDir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", home+":/usr/bin:/bin")
	return m
}

func (m *machine) write(name, content string, perm os.FileMode) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(content), perm); err != nil {
		m.t.Fatal(err)
	}
}

// asked returns what systemctl was asked since the last time.
func (m *machine) asked() string {
	m.t.Helper()
	path := filepath.Join(m.dir, "calls")
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		m.t.Fatal(err)
	}
	os.Remove(path)
	return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", "; ")
}

func (m *machine) install(now, changed bool, asked string) {
	m.t.Helper()
	res, err := Install(m.t.Context(), m.o, now)
	if err != nil || res.Changed != changed || m.asked() != asked {
		m.t.Errorf("install: %+v, %v; want changed %v, and systemctl asked %q", res, err, changed, asked)
	}
}

func (m *machine) units() []string {
	m.t.Helper()
	found, err := filepath.Glob(filepath.Join(m.o.UnitDir, "*"))
	if err != nil {
		m.t.Fatal(err)
	}
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	return found
}

func TestInstallAndUninstall(t *testing.T) {
	m := newMachine(t)
	m.install(false, true, "daemon-reload; enable shoal-agent.service")
	m.install(true, false, "daemon-reload; enable shoal-agent.service; start shoal-agent.service")
	if d := cmp.Diff([]string{agentUnit, guardUnit}, m.units()); d != "" {
		t.Error(d)
	}
	guard, err := os.Stat(self.Guard(m.o.Program))
	if program, perr := os.Stat(m.o.Program); err != nil || perr != nil || !os.SameFile(guard, program) {
		t.Errorf("the guard is not the agent: %v, %v", err, perr)
	}
	m.o.Targets = append(m.o.Targets, "/opt/more/acme") // another app was joined
	m.install(true, true, "daemon-reload; enable shoal-agent.service; restart shoal-agent.service")
	for _, want := range []bool{true, false} {
		res, err := Uninstall(t.Context(), m.o)
		asked := m.asked()
		if err != nil || res.Changed != want || want != (asked == "disable --now shoal-agent.service; daemon-reload") || len(m.units()) > 0 {
			t.Errorf("uninstall: %+v, %v; systemctl was asked %q; left are %q", res, err, asked, m.units())
		}
	}
	if _, err := os.Stat(m.o.Program); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(self.Guard(m.o.Program)); !os.IsNotExist(err) {
		t.Errorf("the guard stays: %v", err)
	}
}

// An agent from a package lies among everybody's programs, one of which may be called guard.
func TestUninstallLeavesOtherPeoplesProgramsAlone(t *testing.T) {
	m := newMachine(t)
	m.o.Self, m.o.Targets = false, nil
	m.write("guard", "of somebody else", 0o755)
	m.install(false, true, "daemon-reload; enable shoal-agent.service")
	if res, err := Uninstall(t.Context(), m.o); err != nil || !res.Changed {
		t.Fatalf("uninstall: %+v, %v", res, err)
	}
	if _, err := os.Stat(self.Guard(m.o.Program)); err != nil {
		t.Error(err)
	}
}

func TestInstallLeavesOtherPeoplesUnitsAlone(t *testing.T) {
	m := newMachine(t)
	const theirs = "[Service]\nExecStart=/usr/bin/shoal agent run\n"
	m.write("units/"+agentUnit, theirs, 0o644)
	if _, err := Install(t.Context(), m.o, true); !errors.Is(err, fault.Config) {
		t.Errorf("install: %v, want config", err)
	}
	if _, err := Uninstall(t.Context(), m.o); !errors.Is(err, fault.Config) {
		t.Errorf("uninstall: %v, want config", err)
	}
	if b, err := os.ReadFile(filepath.Join(m.o.UnitDir, agentUnit)); err != nil || string(b) != theirs || m.asked() != "" || len(m.units()) != 1 {
		t.Errorf("the unit is %q, %v", b, err)
	}
}

// What systemd refused the first time is done the second time, with nothing to write.
func TestInstallGoesOnWhereItFailed(t *testing.T) {
	m := newMachine(t)
	m.write("broken", "", 0o644)
	if _, err := Install(t.Context(), m.o, true); !errors.Is(err, fault.IO) {
		t.Errorf("%v, want io", err)
	}
	m.asked()
	os.Remove(filepath.Join(m.dir, "broken"))
	m.install(true, false, "daemon-reload; enable shoal-agent.service; start shoal-agent.service")
}

// fakeManager is launchd, or the service manager of Windows.
type fakeManager struct {
	state service.Status
	there bool
	fails error
	calls []string
}

func (m *fakeManager) call(name string) error {
	m.calls = append(m.calls, name)
	return m.fails
}

func (m *fakeManager) Install() error {
	m.there, m.state = true, service.StatusStopped
	return m.call("install")
}
func (m *fakeManager) Uninstall() error { m.there = false; return m.call("uninstall") }
func (m *fakeManager) Start() error     { m.state = service.StatusRunning; return m.call("start") }
func (m *fakeManager) Stop() error      { m.state = service.StatusStopped; return m.call("stop") }
func (m *fakeManager) Platform() string { return "fake" }
func (m *fakeManager) Status() (service.Status, error) {
	if !m.there {
		return service.StatusUnknown, service.ErrNotInstalled
	}
	return m.state, nil
}

func TestOtherManagers(t *testing.T) {
	m := &fakeManager{}
	step := func(what string, f func() (*Result, error), changed bool, calls ...string) {
		t.Helper()
		m.calls = nil
		res, err := f()
		if err != nil || res.Changed != changed || !cmp.Equal(m.calls, calls) {
			t.Errorf("%s: %+v, %v, calls %q; want changed %v, calls %q", what, res, err, m.calls, changed, calls)
		}
	}
	install := func(now bool) func() (*Result, error) {
		return func() (*Result, error) { return installAt(m, now) }
	}
	uninstall := func() (*Result, error) { return uninstallAt(m) }
	step("uninstall, nothing there", uninstall, false)
	step("install", install(false), true, "install")
	step("install again", install(false), false)
	step("install and start", install(true), true, "start")
	step("install and start again", install(true), false)
	step("uninstall", uninstall, true, "stop", "uninstall")
	m.fails = os.ErrPermission
	if _, err := installAt(m, true); !errors.Is(err, fault.Permission) {
		t.Errorf("%v, want permission", err)
	}
	c := managed(Options{Program: "/opt/shoal/shoal", Config: "/etc/x.yaml", State: "/srv/state"})
	if got := strings.Join(c.Arguments, " "); got != "--config /etc/x.yaml --state /srv/state agent run --supervised" {
		t.Errorf("it runs %q", got)
	}
}
