//go:build linux

package apply

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shoal/internal/fault"
)

const cutsEach = 66 // for each file system, over all ways of swapping

// cycle updates for ever, to bad versions too, and tells of each begin and end. All the
// while it makes the file system write its journal, for another file: so what was
// renamed is on disk before what was written, unless that was synced.
func (w crashWorld) cycle(e *Engine) int {
	go func() {
		f, err := os.Create(w.path("other"))
		for i := int64(0); err == nil; i++ {
			if _, err = f.WriteAt([]byte("x"), i%4096); err == nil {
				err = f.Sync()
			}
		}
	}()
	now, err := w.installed()
	n, _ := strconv.Atoi(now)
	for err == nil {
		n++
		version := strconv.Itoa(n % 10)
		fmt.Println("begin", version)
		_, err = w.apply(e, version)
		if (err != nil) != slices.Contains(w.Sick, version) {
			break
		}
		if now, err = w.installed(); err == nil {
			fmt.Println("end", now)
			err = e.ClearFailed(w.program().Target) // the bad ones come again
		}
	}
	fmt.Println("failed", why(err))
	return 1
}

// system runs a command of the system.
func system(argv ...string) error {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// disk is a file with a file system, mounted at a directory.
type disk struct{ image, at, options string }

func (d disk) mount() error {
	if err := os.MkdirAll(d.at, 0o755); err != nil {
		return err
	}
	return system("mount", "-o", "loop"+d.options, d.image, d.at)
}

// unmount waits for whoever still looks at it, such as the system's indexers.
func (d disk) unmount() error {
	var err error
	for range 50 {
		if err = system("umount", d.at); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// newDisk makes a file system in a file of that size, and mounts it until the test ends.
func newDisk(t *testing.T, d disk, size int64, mkfs ...string) disk {
	t.Helper()
	f, err := os.OpenFile(d.image, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil {
		err = f.Truncate(size)
		f.Close()
	}
	if err == nil {
		err = system(append(mkfs, d.image)...)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := d.mount(); err != nil {
		t.Skipf("needs to mount loop devices: %v", err)
	}
	t.Cleanup(func() {
		if err := d.unmount(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// cut copies the image as it is at one instant: what the disk would have if the power
// went now. A clone of the file on xfs lets no write come in between.
func (d disk) cut(to string) error {
	src, err := os.Open(d.image)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
}

// The power is cut at random moments of updates on a real file system: its journal is
// replayed, recovery runs, and one of the two versions is there, whole.
func TestLongCrashPowerCuts(t *testing.T) {
	long(t)
	needRoot(t)
	for _, tool := range []string{"mkfs.ext4", "mkfs.xfs", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	// The images lie on an xfs of their own, because that can clone a file.
	base := t.TempDir()
	host := newDisk(t, disk{filepath.Join(base, "host.img"), filepath.Join(base, "host"), ""}, 8<<30, "mkfs.xfs", "-q", "-m", "reflink=1")
	rows := []struct {
		name, options string
		size          int64
		mkfs          []string
	}{
		{"ext4", ",commit=1", 128 << 20, []string{"mkfs.ext4", "-q", "-F"}},
		{"xfs", ",nouuid", 320 << 20, []string{"mkfs.xfs", "-q"}},
	}
	for _, r := range rows {
		for _, world := range worlds {
			t.Run(r.name+"/"+world.name(), func(t *testing.T) {
				name := r.name + "-" + world.name()
				d := newDisk(t, disk{filepath.Join(host.at, name+".img"), filepath.Join(base, name), r.options}, r.size, r.mkfs...)
				assertCutsHurt(t, d, disk{filepath.Join(host.at, "control.img"), filepath.Join(base, "control"), r.options})
				cutPower(t, d, world, cutsEach/len(worlds))
			})
		}
	}
}

// assertCutsHurt shows that this way of cutting the power would find something: a
// program that is written and renamed into place, and never synced, is not there.
func assertCutsHurt(t *testing.T, d, copied disk) {
	t.Helper()
	target := filepath.Join(d.at, "naive")
	content := bytes.Repeat([]byte("naive"), 20000)
	for range 10 {
		for _, err := range []error{os.WriteFile(target+".new", content, 0o755), os.Rename(target+".new", target)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		other, err := os.Create(filepath.Join(d.at, "another"))
		if err == nil {
			err = other.Sync()
			other.Close()
		}
		if err == nil {
			err = d.cut(copied.image)
		}
		if err == nil {
			err = copied.mount()
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(copied.at, "naive"))
		if uerr := copied.unmount(); uerr != nil {
			t.Fatal(uerr)
		}
		os.Remove(copied.image)
		os.Remove(target)
		if err == nil && !bytes.Equal(got, content) {
			return
		}
	}
	t.Fatal("the power was cut behind an update that syncs nothing, and it was whole: this test would find nothing")
}

// cutPower cuts it so many times while updates go on.
func cutPower(t *testing.T, d disk, w crashWorld, cuts int) {
	w.Dir = filepath.Join(d.at, "machine")
	var versions []string
	for n := range 10 {
		versions = append(versions, strconv.Itoa(n))
	}
	w.make(t, append(versions, "next")...)
	unix.Sync()
	if _, err := w.apply(w.engine(nil), "0"); err != nil {
		t.Fatal(err)
	}
	w.Sick = []string{"3", "6", "9"}
	interrupted := 0
	for i := range cuts {
		// What is left by the cut is looked at under the paths that it was written under.
		left := disk{fmt.Sprintf("%s.%d", d.image, i), d.at, d.options}
		legal := w.cutWhileUpdating(t, d, left.image)
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("cut %d: %v", i, err)
			}
		}
		must(d.unmount())
		must(left.mount())
		at := fmt.Sprintf("cut %d", i)
		if w.Swap != SwapSelfupdate {
			w.assert(t, at, legal...)
		}
		j, err := w.engine(nil).store(w.program().Target).load()
		must(err)
		if j != nil {
			interrupted++
			at += fmt.Sprintf(" of an update that was %s", j.State)
		}
		good := slices.DeleteFunc(slices.Clone(legal), func(v string) bool { return slices.Contains(w.Sick, v) })
		w.assertRecovered(t, at, "next", good...)
		must(left.unmount())
		must(os.Remove(left.image))
		must(d.mount())
		if _, err := w.program().recoverBy(w.engine(nil)); err != nil && !errors.Is(err, fault.HealthFailed) && !errors.Is(err, fault.Reverted) {
			t.Fatal(err)
		}
		must(w.engine(nil).ClearFailed(w.program().Target))
	}
	t.Logf("%d cuts, %d of them in the middle of a transaction", cuts, interrupted)
	if interrupted == 0 {
		t.Error("no cut came in the middle of a transaction")
	}
}

// cutWhileUpdating copies the disk into the file image at some moment of an update, and
// returns the versions that may be installed then.
func (w crashWorld) cutWhileUpdating(t *testing.T, d disk, image string) []string {
	t.Helper()
	before, err := w.installed()
	if err != nil {
		t.Fatal(err)
	}
	cmd := w.command("cycle")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go func() {
		for s := bufio.NewScanner(stdout); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
	}()
	told := []string{"end " + before, <-lines}
	time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond)
	for len(lines) > 0 {
		told = append(told, <-lines)
	}
	sure := len(told) - 1 // what ended before the cut is durable
	for sure > 0 && !strings.HasPrefix(told[sure], "end") {
		sure--
	}
	if err := d.cut(image); err != nil {
		t.Error(err)
	}
	cmd.Process.Kill()
	for l := range lines {
		told = append(told, l)
	}
	cmd.Wait()
	var versions []string
	for _, l := range told[sure:] {
		what, version, ok := strings.Cut(l, " ")
		if !ok || what == "failed" {
			t.Fatalf("the updating process says %q", told)
		}
		versions = append(versions, version)
	}
	return versions
}
