package rollout

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"

	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/manifest"
)

const (
	stateFile = "state.json"
	auditFile = "audit.jsonl"
	lockFile  = "lock"

	schema   = 1
	maxState = 16 << 20 // 64 channels of 256 artifacts each are well below
	maxAudit = 4 << 20  // then it becomes audit.jsonl.1, and a new one is begun
	maxLine  = 64 << 10 // of the audit log
)

// stored is the file of states.
type stored struct {
	Schema   int                        `json:"schema"`
	Channels map[manifest.Channel]State `json:"channels"`
}

// readStates reads what was remembered in dir; nothing, when nothing was.
func readStates(dir string) (map[manifest.Channel]State, error) {
	path := filepath.Join(dir, stateFile)
	b, err := readLimited(path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return map[manifest.Channel]State{}, nil
	}
	if err != nil {
		return nil, fault.New(fault.IO, "reading how the rollouts stand: %w", err)
	}
	var s stored
	if err := json.Unmarshal(b, &s); err != nil || s.Schema != schema {
		return nil, fault.New(fault.IO, "%q is not good: schema %d, %w", path, s.Schema, errOr(err)).
			Line("It says which gates are open and what is held. Machines obey the last beacon until it runs out.").
			Do("remove it: the controller then takes up what the beacons in the tree say")
	}
	if s.Channels == nil {
		s.Channels = map[manifest.Channel]State{}
	}
	return s.Channels, nil
}

func errOr(err error) error {
	if err == nil {
		return errors.New("another build wrote it")
	}
	return err
}

func writeStates(dir string, states map[manifest.Channel]State) error {
	b, err := json.MarshalIndent(stored{schema, states}, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, stateFile), append(b, '\n'), 0o600)
}

func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%q is larger than %d bytes", path, limit)
	}
	return b, err
}

// audit adds e to the log in dir, durably.
func audit(dir string, e Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, auditFile)
	if fi, err := os.Stat(path); err == nil && fi.Size()+int64(len(line)) > maxAudit {
		if err := durable.Rename(path, path+".1"); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	last := []byte{'\n'}
	if fi, err := f.Stat(); err == nil && fi.Size() > 0 {
		f.ReadAt(last, fi.Size()-1)
	}
	line = append(line, '\n')
	if last[0] != '\n' { // a crash cut the last one short
		line = append([]byte{'\n'}, line...)
	}
	if _, err := f.Write(line); err != nil {
		return err
	}
	return f.Sync()
}

// Audit returns the last decisions that were made in dir, oldest first, at most so many.
// A line that a crash cut short is left out.
func Audit(dir string, most int) ([]Event, error) {
	var events []Event
	for _, name := range []string{auditFile + ".1", auditFile} {
		b, err := readLimited(filepath.Join(dir, name), 2*maxAudit)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fault.New(fault.IO, "reading the audit log: %w", err)
		}
		lines := bufio.NewScanner(bytes.NewReader(b))
		lines.Buffer(nil, maxLine)
		for lines.Scan() {
			var e Event
			if json.Unmarshal(lines.Bytes(), &e) == nil && e.Kind != "" {
				events = append(events, e)
			}
		}
	}
	if over := len(events) - most; over > 0 {
		events = events[over:]
	}
	return events, nil
}

// take takes the lock of dir: one process steers.
func take(dir string) (*flock.Flock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.New(fault.Permission, "making room for the rollouts' record: %w", err)
	}
	path := filepath.Join(dir, lockFile)
	l := flock.New(path, flock.SetPermissions(0o600))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fault.New(fault.IO, "locking %q: %w", dir, err)
	}
	if !ok {
		holder := "another process"
		if b, err := readLimited(path, 16); err == nil && len(b) > 0 {
			holder = "process " + strings.TrimSpace(string(b))
		}
		return nil, fault.New(fault.Locked, "%s steers the rollouts of this repository", holder).
			Line("Two that sign beacons would contradict each other. Nothing was changed.").
			Do("stop one of the two: one shoal serve has the beacon key")
	}
	os.WriteFile(path, fmt.Appendln(nil, os.Getpid()), 0o600) // for the message above only
	return l, nil
}
