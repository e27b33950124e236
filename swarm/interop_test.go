package swarm_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"shoal/swarm"
	"shoal/swarm/swarmtest"
)

// aria2 starts the stock client aria2 on a torrent in dir, and ends it with the test.
// The result tells when it has exited by itself.
func aria2(t *testing.T, torrent, dir string, args ...string) <-chan error {
	t.Helper()
	path, err := exec.LookPath("aria2c")
	if err != nil {
		t.Skip("skipped: aria2c is not installed")
	}
	if testing.Short() {
		t.Skip("swarms take seconds; skipped with -short")
	}
	cmd := exec.CommandContext(t.Context(), path, append([]string{
		"--no-conf", "--dir=" + dir, "--listen-port=10000-29999", "--enable-dht=false", "--enable-dht6=false",
		"--bt-enable-lpd=false", "--disable-ipv6=true", "--file-allocation=none", "--summary-interval=0",
		"--bt-stop-timeout=60", "--stop-with-process=" + strconv.Itoa(os.Getpid()),
	}, append(args, torrent)...)...)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	log, err := os.Create(filepath.Join(t.TempDir(), "aria2.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		exited <- cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("aria2: %s", b)
		}
	})
	return exited
}

// Plain connections, and such that obfuscate everything (MSE with RC4).
var cryptos = map[string][]string{
	"plain":      {"--bt-min-crypto-level=plain"},
	"obfuscated": {"--bt-require-crypto=true", "--bt-min-crypto-level=arc4"},
}

func writeTorrent(t *testing.T, c *content, tracker *swarmtest.Tracker) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "content.torrent")
	if err := os.WriteFile(path, c.info.Metainfo([]string{tracker.URL}, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStockClientFetchesFromUs(t *testing.T) {
	t.Parallel()
	for _, super := range []bool{false, true} {
		for name, crypto := range cryptos {
			if super {
				name += "-super-seeding"
			}
			testStockClientFetches(t, name, crypto, swarm.Config{SuperSeed: super})
		}
	}
}

func testStockClientFetches(t *testing.T, name string, crypto []string, conf swarm.Config) {
	t.Run(name, func(t *testing.T) {
		t.Parallel() // aria2 takes its time to begin and to end
		c := newContent(t, 2<<20)
		tracker := swarmtest.NewTracker(t)
		seed := newSeed(t, c, conf, tracker.URL)
		// It does not learn of aria2: two that dial each other at the same time may each
		// close the connection that the other keeps, and aria2 waits long to try again.
		tracker.Wait(withPatience(t), t, "started")
		dir := t.TempDir()
		exited := aria2(t, writeTorrent(t, c, tracker), dir, append(crypto, "--seed-time=0")...)
		select {
		case err := <-exited:
			if err != nil {
				t.Fatal(err)
			}
		case <-withPatience(t).Done():
			t.Fatal("aria2 does not finish")
		}
		c.check(t, filepath.Join(dir, c.info.Name()))
		if given := seed.Stats().Given[swarm.ClassLAN]; given < int64(len(c.data)) {
			t.Errorf("we count %d bytes given, want %d", given, len(c.data))
		}
	})
}

func TestWeFetchFromStockClient(t *testing.T) {
	t.Parallel()
	for name, crypto := range cryptos {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // aria2 takes its time to begin and to end
			c := newContent(t, 2<<20)
			tracker := swarmtest.NewTracker(t)
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, c.info.Name()), c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			aria2(t, writeTorrent(t, c, tracker), dir, append(crypto, "--seed-ratio=0", "--check-integrity=true")...)
			tracker.Wait(withPatience(t), t, "started") // aria2 is there
			n := newNode(t, swarm.Config{})
			dst := filepath.Join(t.TempDir(), "got")
			got, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Trackers: []string{tracker.URL}})
			if err != nil {
				t.Fatal(err)
			}
			c.check(t, dst)
			if got.LAN-got.Wasted != int64(len(c.data)) {
				t.Errorf("we count %+v, want %d bytes", got, len(c.data))
			}
		})
	}
}
