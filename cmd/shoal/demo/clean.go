package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

const (
	dirPrefix = "shoal-demo-"
	lockName  = "demo.lock" // held by the demo that works in the directory
	pidsName  = "processes" // one process id per line
)

// workDir is the directory of one demo.
type workDir struct {
	path string
	lock *flock.Flock
}

// newWorkDir makes a directory below base, which may be empty for the system's place
// of temporary files.
func newWorkDir(base string) (*workDir, error) {
	path, err := os.MkdirTemp(base, dirPrefix)
	if err != nil {
		return nil, fmt.Errorf("making the demo's directory: %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	d := &workDir{path: path, lock: flock.New(filepath.Join(path, lockName))}
	if ok, err := d.lock.TryLock(); err != nil || !ok {
		return nil, errors.Join(fmt.Errorf("locking the demo's directory %q: taken %v", path, !ok), err, os.RemoveAll(path))
	}
	return d, nil
}

// note remembers a process, so that Clean finds it should this demo be killed where
// the system does not end it with its parent.
func (d *workDir) note(pid int) error {
	f, err := os.OpenFile(filepath.Join(d.path, pidsName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, pid)
	return errors.Join(err, f.Close())
}

// remove deletes the directory. The processes in it have ended.
func (d *workDir) remove() error {
	return errors.Join(d.lock.Unlock(), os.RemoveAll(d.path))
}

// Clean removes what demos that were killed left below base, processes first, and
// returns the directories it removed. Those of running demos stay.
func Clean(ctx context.Context, base string) ([]string, error) {
	if base == "" {
		base = os.TempDir()
	}
	found, err := filepath.Glob(filepath.Join(base, dirPrefix+"*"))
	if err != nil {
		return nil, err
	}
	var removed []string
	var problems []error
	for _, dir := range found {
		if fi, err := os.Lstat(dir); err != nil || !fi.IsDir() {
			continue
		}
		lock := flock.New(filepath.Join(dir, lockName))
		if ok, err := lock.TryLock(); !ok {
			if err != nil {
				problems = append(problems, fmt.Errorf("locking %q: %w", dir, err))
			}
			continue // a demo is at work in it
		}
		endLeftovers(ctx, dir)
		problems = append(problems, (&workDir{dir, lock}).remove())
		removed = append(removed, dir)
	}
	return removed, errors.Join(problems...)
}

// endLeftovers ends the processes noted in dir that are still the demo's: those whose
// command line names the directory. A process id alone may be somebody else's by now.
func endLeftovers(ctx context.Context, dir string) {
	b, err := os.ReadFile(filepath.Join(dir, pidsName))
	if err != nil {
		return // nothing was started
	}
	for line := range strings.Lines(string(b)) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil || pid <= 1 {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		command, err := exec.CommandContext(ctx, "ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
		cancel()
		if err != nil || !bytes.Contains(command, []byte(dir+string(filepath.Separator))) {
			continue
		}
		if p, err := os.FindProcess(pid); err == nil {
			p.Kill()
		}
	}
}
