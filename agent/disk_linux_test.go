package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/manifesttest"
)

// smallDisk mounts a file system of size bytes at a new directory.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: only root can mount a small file system to fill")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("skipped: mounting a small file system to fill: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func fill(t *testing.T, dir string) (undo func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); ; {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// Where there is no room nothing is changed, and when there is room it goes on.
func TestFullDisks(t *testing.T) {
	const size = 4 << 20
	rows := []struct {
		name string
		put  func(b *bench, disk string) // what is on the small disk
	}{
		{"cache", func(b *bench, disk string) { b.cfg.CacheDir = filepath.Join(disk, "cache") }},
		{"target", func(b *bench, disk string) {
			b.target = filepath.Join(disk, "opt", "acme")
			if err := os.Mkdir(filepath.Dir(b.target), 0o755); err != nil {
				b.t.Fatal(err)
			}
			if err := os.WriteFile(b.target, b.old, 0o755); err != nil {
				b.t.Fatal(err)
			}
			b.cfg.Apps[0].Target = b.target
		}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			disk := smallDisk(t, size)
			b := newBench(t)
			b.cfg.idle = 200_000_000
			r.put(b, disk)
			next := agenttest.Large("2", 0)
			b.Release(stable, 2, next)
			undo := fill(t, disk)
			still := b.running()
			u := b.update(Choice{})
			if u.Code != fault.NoSpace || u.Error == nil || len(u.Error.Next) == 0 {
				t.Errorf("%s (%+v), want no_space and what to do", u.Code, u.Error)
			}
			still()
			b.installed(b.old)
			undo()
			b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
			b.installed(next)
		})
	}
	t.Run("midway", func(t *testing.T) {
		disk := smallDisk(t, size)
		b := newBench(t)
		b.cfg.idle = 200_000_000
		b.cfg.CacheDir = filepath.Join(disk, "cache")
		// Room for what comes in pieces is taken before the first one; this comes at once.
		next := agenttest.Large("2", 0)[:60_000]
		b.Release(stable, 2, next)
		undo := func() {}
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/data/") { // the room was there when it was asked for
				undo = fill(t, disk)
			}
			http.FileServer(http.Dir(b.Dir)).ServeHTTP(w, r)
		}))
		defer srv.Close()
		b.cfg.Sources.Publisher = srv.URL
		b.want(b.update(Choice{}), fault.NoSpace, manifest.StateWaiting)
		b.installed(b.old)
		undo()
		b.cfg.Sources.Publisher = b.Serve()
		b.want(b.update(Choice{}), fault.OK, manifest.StateHealthy)
		b.installed(next)
	})
}

func TestMain(m *testing.M) {
	if path := os.Getenv("AGENT_TEST_UPDATE"); path != "" {
		updateAsChild(path)
		return
	}
	os.Exit(m.Run())
}

// child is what a process of another user is told.
type child struct{ State, Join, Target, Source string }

// updateAsChild updates, and prints the code and what to do.
func updateAsChild(path string) {
	var c child
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	now := manifesttest.Start.Add(24 * time.Hour)
	a, err := Open(ctx, Config{
		StateDir: c.State, JoinFile: c.Join, Listen: "127.0.0.1:0", Sources: Sources{Publisher: c.Source},
		Apps: []AppConfig{{Name: "acme", Channel: "stable", Target: c.Target}}, Clock: func() time.Time { return now },
	})
	if err != nil {
		fmt.Println(fault.CodeOf(err), err)
		return
	}
	defer a.Close()
	updated, err := a.Update(ctx, nil, Choice{}, true, nil)
	if err != nil {
		fmt.Println(fault.CodeOf(err), err)
		return
	}
	fmt.Println(updated[0].Code, updated[0].Error)
}

// A directory that this user may not write to is told of as what it is.
func TestUnwritableTargetDirectory(t *testing.T) {
	b := newBench(t)
	next := agenttest.Program("2", 0)
	b.Release(stable, 2, next)
	dir := t.TempDir()
	told, exe := filepath.Join(dir, "told.json"), filepath.Join(dir, "agent.test")
	c := child{State: filepath.Join(dir, "state"), Join: b.cfg.JoinFile, Target: b.target, Source: b.cfg.Sources.Publisher}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(told, text, 0o644); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "AGENT_TEST_UPDATE="+told, "TMPDIR="+dir)
	if os.Geteuid() == 0 {
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		for path := dir; len(path) > len(os.TempDir()); path = filepath.Dir(path) {
			if err := os.Chmod(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for path := b.target; len(path) > len(os.TempDir()); path = filepath.Dir(path) {
			if err := os.Chmod(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	} else if err := os.Chmod(filepath.Dir(b.target), 0o555); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.HasPrefix(out, []byte(fault.Permission)) {
		t.Errorf("%s, %v; want permission", out, err)
	}
	if !bytes.Contains(out, []byte(filepath.Dir(b.target))) {
		t.Errorf("%s: the directory is not named", out)
	}
	b.installed(b.old)
}
