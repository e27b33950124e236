package swarm_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"shoal/swarm"
)

func TestResumeDownloadsOnlyWhatIsMissing(t *testing.T) {
	c := newContent(t, 4<<20)
	seed := newSeed(t, c, swarm.Config{})
	n := newNode(t, swarm.Config{})
	dst := filepath.Join(t.TempDir(), "got")
	had := bytes.Clone(c.data)
	clear(had[1<<20 : 2<<20])
	had[3<<20] ^= 1 // one piece of 32 KiB
	if err := os.WriteFile(dst, had, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := n.Fetch(withPatience(t), c.info, dst, swarm.FetchOptions{Peers: []string{seed.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
	if useful := got.LAN - got.Wasted; useful != 1<<20+32<<10 {
		t.Errorf("%d bytes were downloaded, want 1 MiB and one piece of 32 KiB", useful)
	}
}

// A process that fetches, for TestResumeAfterKill.
func TestMain(m *testing.M) {
	if dst := os.Getenv("SWARM_TEST_FETCH_TO"); dst != "" {
		fetchForever(dst, os.Getenv("SWARM_TEST_INFO"), os.Getenv("SWARM_TEST_PEER"))
		return
	}
	os.Exit(m.Run())
}

func fetchForever(dst, infoFile, peer string) {
	b, err := os.ReadFile(infoFile)
	if err != nil {
		panic(err)
	}
	length, _ := strconv.ParseInt(os.Getenv("SWARM_TEST_LENGTH"), 10, 64)
	i, err := swarm.OpenInfo(b, swarm.Ref{Infohash: sha1.Sum(b), InfoSHA256: sha256.Sum256(b), Length: length})
	if err != nil {
		panic(err)
	}
	n, err := swarm.New(swarm.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		panic(err)
	}
	report := func(p swarm.Progress) { fmt.Println(p.Done) }
	_, err = n.Fetch(context.Background(), i, dst, swarm.FetchOptions{Peers: []string{peer}, Progress: report})
	panic(fmt.Sprint("the fetch ended: ", err))
}

func TestResumeAfterKill(t *testing.T) {
	c := newContent(t, 8<<20)
	seed := newSeed(t, c, swarm.Config{Limits: swarm.Limits{LANUp: 4 << 20}})
	dir := t.TempDir()
	dst, info := filepath.Join(dir, "got"), filepath.Join(dir, "info")
	if err := os.WriteFile(info, c.info.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := withPatience(t)
	child := exec.CommandContext(ctx, os.Args[0])
	child.Env = append(os.Environ(), "SWARM_TEST_FETCH_TO="+dst, "SWARM_TEST_INFO="+info,
		"SWARM_TEST_PEER="+seed.Addr().String(), "SWARM_TEST_LENGTH="+strconv.Itoa(len(c.data)))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var verified int64
	for lines := bufio.NewScanner(out); lines.Scan(); {
		verified, err = strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if verified > 1<<20 {
			break
		}
	}
	child.Process.Kill()
	child.Wait()
	if verified <= 1<<20 || verified >= int64(len(c.data)) {
		t.Fatalf("the other process had %d bytes of %d when it was killed", verified, len(c.data))
	}
	seed.SetLimits(swarm.Limits{})
	n := newNode(t, swarm.Config{})
	got, err := n.Fetch(ctx, c.info, dst, swarm.FetchOptions{Peers: []string{seed.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	c.check(t, dst)
	if useful := got.LAN - got.Wasted; useful > int64(len(c.data))-verified {
		t.Errorf("%d bytes were downloaded although %d of %d had been verified", useful, verified, len(c.data))
	}
}
