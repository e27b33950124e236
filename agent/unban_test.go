package agent

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/swarm/swarmtest"
)

// A peer that lied is kept out by the running agent, until an operator lets it in again.
func TestUnbanLetsALiarInAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: a swarm")
	}
	b := newBench(t)
	next := agenttest.Large("2", 0)
	b.Release(stable, 2, next)
	b.Remove(tree.Data(manifest.Sum(next))) // a liar alone has it
	raw, err := os.ReadFile(filepath.Join(b.Dir, filepath.FromSlash(tree.Manifest(stable))))
	if err != nil {
		t.Fatal(err)
	}
	env, err := manifest.ParseEnvelope(raw, manifest.TypeManifest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.ReadManifestDraft(env.Payload)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := m.Artifacts[0].Usable()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pieces := int((p.Length + 1<<16 - 1) >> 16) // of 64 KiB in so small a file
	liar := swarmtest.ServePeer(t, ln, p.Infohash, pieces, func(_, _, length uint32) []byte { return make([]byte, length) })
	b.cfg.Peers = []string{liar.Addr}
	defer b.run()()
	lifted := 0
	for deadline := time.Now().Add(time.Minute); lifted == 0; time.Sleep(20 * time.Millisecond) {
		if lifted, err = Unban(t.Context(), b.cfg); err != nil && fault.CodeOf(err) != fault.NotFound || time.Now().After(deadline) {
			t.Fatalf("%d bans, %v; the liar was asked %d times", lifted, err, liar.Requests.Load())
		}
	}
	asked := liar.Requests.Load()
	for deadline := time.Now().Add(time.Minute); liar.Requests.Load() == asked; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the liar was not let in again")
		}
	}
}
