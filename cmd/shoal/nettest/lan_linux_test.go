package nettest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	patience = 2 * time.Minute // for what is about to happen
	linkRate = "100mbit"
)

// shoal is the program under test.
var shoal string

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveVar); dir != "" {
		fmt.Fprintln(os.Stderr, serveFiles(dir))
		os.Exit(1)
	}
	if os.Getenv("SHOAL_LONG") == "" || os.Geteuid() != 0 {
		os.Exit(m.Run()) // and every test says why it does nothing
	}
	dir, err := os.MkdirTemp("", "shoal-nettest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	shoal = filepath.Join(dir, "shoal")
	status := 1
	if out, err := exec.Command("go", "build", "-o", shoal, "shoal/cmd/shoal").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building shoal: %v\n%s", err, out)
	} else {
		status = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(status)
}

// lan is a switch, in a network namespace of its own, and machines in others. It has no
// router: nobody has a default route.
type lan struct {
	t  *testing.T
	id string
}

// machine is one of them, with a program and an agent that keeps it.
type machine struct {
	lan    *lan
	i      int
	name   string // of its namespace
	dir    string
	target string
	agent  *exec.Cmd
	log    *os.File
}

// newLAN makes the switch. Everything is gone when the test is over.
func newLAN(t *testing.T) *lan {
	t.Helper()
	if os.Getenv("SHOAL_LONG") == "" {
		t.Skip("makes network namespaces; make test-net runs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make network namespaces")
	}
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s (iproute2) is not installed", tool)
		}
	}
	n := &lan{t: t, id: fmt.Sprintf("shoal%d", os.Getpid())}
	n.namespace(n.id + "sw")
	n.bridge("br0")
	return n
}

func (n *lan) namespace(name string) {
	n.t.Helper()
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		n.t.Skipf("no network namespaces here: %s", bytes.TrimSpace(out))
	}
	n.t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	n.run("ip", "netns", "exec", name, "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad")
	n.run("ip", "-n", name, "link", "set", "lo", "up")
}

// bridge adds a bridge to the switch.
func (n *lan) bridge(name string) {
	n.t.Helper()
	n.run("ip", "-n", n.id+"sw", "link", "add", name, "type", "bridge")
	n.run("ip", "-n", n.id+"sw", "link", "set", name, "up")
}

func (n *lan) run(command ...string) {
	n.t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
}

// plug makes the machine i with a cable of linkRate to br0.
func (n *lan) plug(i int) *machine {
	n.t.Helper()
	m := &machine{lan: n, i: i, name: fmt.Sprintf("%sm%d", n.id, i), dir: n.t.TempDir()}
	n.namespace(m.name)
	port := m.port()
	n.run("ip", "-n", n.id+"sw", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", m.name)
	for _, end := range [][2]string{{n.id + "sw", port}, {m.name, "eth0"}} {
		if out, err := exec.Command("tc", "-n", end[0], "qdisc", "add", "dev", end[1], "root", "tbf",
			"rate", linkRate, "burst", "64kb", "latency", "50ms").CombinedOutput(); err != nil {
			n.t.Skipf("links cannot be shaped here: %s", bytes.TrimSpace(out))
		}
	}
	n.move(m, "br0")
	n.run("ip", "-n", m.name, "addr", "add", fmt.Sprintf("10.99.7.%d/24", 10+i), "dev", "eth0")
	n.run("ip", "-n", m.name, "link", "set", "eth0", "up")
	return m
}

func (m *machine) port() string { return fmt.Sprintf("p%d", m.i) }

// move puts the machine's cable into a bridge.
func (n *lan) move(m *machine, bridge string) {
	n.t.Helper()
	n.run("ip", "-n", n.id+"sw", "link", "set", m.port(), "master", bridge, "up")
}

// command is a command on the machine.
func (m *machine) command(ctx context.Context, stdin string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", m.name}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "SHOAL_DISK_RESERVE=0", "SHOAL_CHECK_EVERY=1h")
	return cmd
}

// shoal runs shoal on the machine and returns what it prints.
func (m *machine) shoal(stdin string, args ...string) string {
	t := m.lan.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	own := []string{shoal, "--config", filepath.Join(m.dir, "agent.yaml"), "--state", filepath.Join(m.dir, "state")}
	out, err := m.command(ctx, stdin, append(own, args...)...).CombinedOutput()
	if err != nil {
		m.fatalf("shoal %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// start starts the machine's agent.
func (m *machine) start() {
	t := m.lan.t
	t.Helper()
	var err error
	if m.log, err = os.Create(filepath.Join(m.dir, "log")); err != nil {
		t.Fatal(err)
	}
	m.agent = m.command(context.Background(), "", shoal, "--config", filepath.Join(m.dir, "agent.yaml"),
		"--state", filepath.Join(m.dir, "state"), "--log-level", "debug", "agent", "run")
	m.agent.Stderr = m.log
	if err := m.agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.agent.Process.Signal(syscall.SIGTERM)
		m.agent.Wait()
		m.log.Close()
	})
}

// runs reports whether the machine's program is the one with this hash.
func (m *machine) runs(sum [32]byte) bool {
	f, err := os.Open(m.target)
	if err != nil {
		return false
	}
	defer f.Close()
	h := sha256.New()
	io.Copy(h, f)
	return [32]byte(h.Sum(nil)) == sum
}

// fatalf ends the test with the end of the machine's log.
func (m *machine) fatalf(format string, args ...any) {
	m.lan.t.Helper()
	if m.log != nil {
		log, _ := os.ReadFile(m.log.Name())
		m.lan.t.Logf("%s says:\n%s", m.name, log[max(0, len(log)-8<<10):])
	}
	m.lan.t.Fatalf(m.name+": "+format, args...)
}

// wait waits until the programs of all are the one with this hash, and returns how long
// it took.
func wait(all []*machine, sum [32]byte) time.Duration {
	began := time.Now()
	for _, m := range all {
		for !m.runs(sum) {
			if time.Since(began) > patience {
				m.fatalf("does not run it after %s", patience)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	return time.Since(began)
}

// site is a publisher that never serves: what it makes is carried on a stick.
type site struct {
	link, key string
	bundles   []string   // of version 1, 2...
	sums      [][32]byte // of the programs in them
	programs  []string
}

// newSite publishes two versions of a program, of the given size in bytes.
func newSite(t *testing.T, size int) *site {
	t.Helper()
	dir := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(shoal, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "SHOAL_SERVE_PUBLIC_URL=https://192.0.2.1:1")
		var out, problem bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &problem
		if err := cmd.Run(); err != nil {
			t.Fatalf("shoal %s: %v\n%s", strings.Join(args, " "), err, problem.Bytes())
		}
		return out.String()
	}
	s := &site{key: filepath.Join(dir, "pub/keys/fleet")}
	run("init", "--app", "acme", "--channel", "stable", "--dir", "pub", "--no-passphrase")
	for v := 1; v <= 2; v++ {
		program := fmt.Appendf(nil, "#!/bin/sh\necho %d.0.0\nexit\n", v)
		if v > 1 {
			filler := make([]byte, size-len(program))
			rand.Read(filler)
			program = append(program, filler...)
		}
		path := filepath.Join(dir, fmt.Sprintf("v%d", v))
		if err := os.WriteFile(path, program, 0o755); err != nil {
			t.Fatal(err)
		}
		run("--config", "pub/publisher.yaml", "publish", "--version", fmt.Sprintf("%d.0.0", v),
			"--platform", runtime.GOOS+"/"+runtime.GOARCH+"="+path)
		stick := filepath.Join(dir, fmt.Sprintf("v%d.shoalbundle", v))
		run("--config", "pub/publisher.yaml", "bundle", "create", "--out", stick)
		if v == 1 { // a later link asks for a later release
			s.link = run("--config", "pub/publisher.yaml", "link", "create")
		}
		s.bundles, s.sums, s.programs = append(s.bundles, stick), append(s.sums, sha256.Sum256(program)), append(s.programs, path)
	}
	return s
}

// join has the machine join with version 1 installed.
func (s *site) join(m *machine) {
	t := m.lan.t
	t.Helper()
	m.target = filepath.Join(m.dir, "opt", "acme")
	program, err := os.ReadFile(s.programs[0])
	if err == nil {
		err = os.Mkdir(filepath.Dir(m.target), 0o755)
	}
	if err == nil {
		err = os.WriteFile(m.target, program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.shoal(s.link, "agent", "join", "-", "--from", s.bundles[0], "--fleet-key", s.key, "--target", m.target)
}

// try runs shoal on the machine, whatever comes of it, and returns what it prints.
func (m *machine) try(args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(m.lan.t.Context(), patience)
	defer cancel()
	own := []string{shoal, "--config", filepath.Join(m.dir, "agent.yaml"), "--state", filepath.Join(m.dir, "state")}
	return m.command(ctx, "", append(own, args...)...).Output()
}
