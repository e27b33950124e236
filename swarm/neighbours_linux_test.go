package swarm_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/swarm"
	"shoal/swarm/fleet"
)

// TestLongLAN is a LAN of machines that have nothing but each other: network namespaces
// on a switch, without a default route, a tracker or an address known before. One machine
// has a file, the others get it, also the one whose cable is plugged in last.
func TestLongLAN(t *testing.T) {
	if role := os.Getenv("SHOAL_LAN_ROLE"); role != "" {
		beLANMachine(t, role)
		return
	}
	longNet(t)
	dir := t.TempDir()
	old, next := newKeys(t), newKeys(t)
	files := map[string]string{"open": ""}
	write := func(name string, keys ...*fleet.Keys) {
		path := filepath.Join(dir, name+".key")
		var text []byte
		for i, k := range keys {
			single := fmt.Sprintf("%s.%d", path, i)
			if err := k.Write(single); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(single)
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, b...)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		files[name] = path
	}
	write("old", old)
	write("both", old, next)
	write("swapped", next, old)
	for _, r := range []struct{ name, seed, a, b, late string }{
		{"open", "open", "open", "open", "open"},
		{"key-being-replaced", "both", "old", "swapped", "both"},
	} {
		t.Run(r.name, func(t *testing.T) {
			c := newContent(t, 4<<20)
			n := newLAN(t, 4)
			late := n.start(t, 3, "fetch", c, files[r.late]) // without a cable
			seed := n.start(t, 0, "seed", c, files[r.seed])
			n.plug(t, 0, "192.0.2.10/24", "fd00:77::10/64")
			fetching := []*lanMachine{n.start(t, 1, "fetch", c, files[r.a]), n.start(t, 2, "fetch", c, files[r.b])}
			n.plug(t, 1, "192.0.2.11/24")
			n.plug(t, 2, "fd00:77::12/64") // has IPv6 alone
			for _, m := range fetching {
				m.wait(t, c)
			}
			n.plug(t, 3, "192.0.2.13/24")
			late.wait(t, c)
			seed.stop(t)
		})
	}
}

// TestLongLANStock is the same with a stock client that finds us by its own announcements.
func TestLongLANStock(t *testing.T) {
	longNet(t)
	aria, err := exec.LookPath("aria2c")
	if err != nil {
		t.Skip("aria2c is not installed")
	}
	c := newContent(t, 4<<20)
	dir := t.TempDir()
	torrent := filepath.Join(dir, "content.torrent")
	if err := os.WriteFile(torrent, c.info.Metainfo(nil, nil), 0o644); err != nil {
		t.Fatal(err)
	}
	n := newLAN(t, 2)
	n.plug(t, 0, "192.0.2.10/24")
	n.plug(t, 1, "192.0.2.11/24")
	seed := n.start(t, 0, "seed", c, "")
	ctx, cancel := context.WithTimeout(t.Context(), lanPatience)
	defer cancel()
	// aria2 joins the group by the route to it.
	n.run(t, "ip", "-n", n.machine(1), "route", "add", "239.192.152.143", "dev", "eth0")
	out, err := exec.CommandContext(ctx, "ip", "netns", "exec", n.machine(1), aria, "--no-conf", "--bt-enable-lpd=true",
		"--bt-lpd-interface=192.0.2.11", "--enable-dht=false", "--enable-dht6=false", "--seed-time=0", "--dir", dir, torrent).CombinedOutput()
	if err != nil {
		t.Fatalf("aria2c: %v\n%s", err, out)
	}
	c.check(t, filepath.Join(dir, "content.bin"))
	seed.stop(t)
}

const lanPatience = 3 * time.Minute // of a machine that waits while others fetch, too

func longNet(t *testing.T) {
	t.Helper()
	if os.Getenv("SHOAL_LONG") == "" {
		t.Skip("makes network namespaces; SHOAL_LONG=1 runs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip (iproute2) is not installed")
	}
}

// A lan is a switch, in a network namespace of its own, and machines without cables.
type lan struct{ id string }

func newLAN(t *testing.T, machines int) *lan {
	t.Helper()
	n := &lan{id: fmt.Sprintf("shoal%d", os.Getpid())}
	names := []string{n.id + "sw"}
	for i := range machines {
		names = append(names, n.machine(i))
	}
	for _, name := range names {
		if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
			t.Skipf("no network namespaces here: %s", bytes.TrimSpace(out))
		}
		t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
		// An address is there at once, not after it has been asked for twice.
		n.run(t, "ip", "netns", "exec", name, "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad")
		n.run(t, "ip", "-n", name, "link", "set", "lo", "up")
	}
	n.run(t, "ip", "-n", n.id+"sw", "link", "add", "br0", "type", "bridge")
	n.run(t, "ip", "-n", n.id+"sw", "link", "set", "br0", "up")
	return n
}

func (n *lan) machine(i int) string { return fmt.Sprintf("%sm%d", n.id, i) }

func (n *lan) run(t *testing.T, command ...string) {
	t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
}

// plug connects a machine.
func (n *lan) plug(t *testing.T, i int, addrs ...string) {
	t.Helper()
	port := fmt.Sprintf("p%d", i)
	n.run(t, "ip", "-n", n.id+"sw", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", n.machine(i))
	n.run(t, "ip", "-n", n.id+"sw", "link", "set", port, "master", "br0", "up")
	n.run(t, "ip", "-n", n.machine(i), "link", "set", "eth0", "up")
	for _, a := range addrs {
		n.run(t, "ip", "-n", n.machine(i), "addr", "add", a, "dev", "eth0")
	}
}

// A lanMachine is a process in a machine's namespace that has a node.
type lanMachine struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	log bytes.Buffer
	dst string
}

// start runs a node that fetches, or that seeds until its input ends.
func (n *lan) start(t *testing.T, i int, role string, c *content, keys string) *lanMachine {
	t.Helper()
	m := &lanMachine{dst: filepath.Join(t.TempDir(), "got")}
	ctx, cancel := context.WithTimeout(context.Background(), 2*lanPatience)
	m.cmd = exec.CommandContext(ctx, "ip", "netns", "exec", n.machine(i), os.Args[0], "-test.run=^TestLongLAN$")
	m.cmd.Env = append(os.Environ(), "SHOAL_LAN_ROLE="+role, "SHOAL_LAN_CONTENT="+c.path, "SHOAL_LAN_GOT="+m.dst, "SHOAL_LAN_KEYS="+keys)
	m.cmd.Stderr = &m.log
	var err error
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); m.cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "started\n" {
		t.Fatalf("%s: %q, %v\n%s", n.machine(i), line, err, m.log.Bytes())
	}
	return m
}

func (m *lanMachine) wait(t *testing.T, c *content) {
	t.Helper()
	if err := m.cmd.Wait(); err != nil {
		t.Fatalf("%v: %v\n%s", m.cmd.Args, err, m.log.Bytes())
	}
	c.check(t, m.dst)
}

func (m *lanMachine) stop(t *testing.T) {
	t.Helper()
	m.in.Close()
	if err := m.cmd.Wait(); err != nil {
		t.Fatalf("%v: %v\n%s", m.cmd.Args, err, m.log.Bytes())
	}
}

// beLANMachine is the process of a lanMachine.
func beLANMachine(t *testing.T, role string) {
	ctx, cancel := context.WithTimeout(t.Context(), lanPatience)
	defer cancel()
	path, keys := os.Getenv("SHOAL_LAN_CONTENT"), os.Getenv("SHOAL_LAN_KEYS")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	info, err := swarm.BuildInfo(ctx, f, "content.bin", fi.Size(), keys != "")
	if err != nil {
		t.Fatal(err)
	}
	conf := swarm.Config{
		LAN:    swarm.LAN{Enabled: true, Interfaces: []string{"eth*"}},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if keys != "" {
		k, err := fleet.Read(keys)
		if err != nil {
			t.Fatal(err)
		}
		conf.Fleet = member(t, k)
	}
	n, err := swarm.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	fmt.Println("started")
	if role == "seed" {
		if err := n.Seed(ctx, info, path, nil); err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, os.Stdin)
	} else if _, err := n.Fetch(ctx, info, os.Getenv("SHOAL_LAN_GOT"), swarm.FetchOptions{}); err != nil {
		t.Fatalf("%v; %+v", err, n.Stats().LAN)
	}
	fmt.Fprintf(os.Stderr, "%+v\n", n.Stats().LAN)
}
