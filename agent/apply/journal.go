package apply

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"shoal/agent/service"
)

const (
	journalSchema = 1
	// maxJournal bounds what is read: a record is under 1 KB, and at most three hooks
	// add 64 KiB of output each, which JSON can make six times as long.
	maxJournal = 2 << 20
)

// errJournal is a journal that says nothing reliable.
var errJournal = errors.New("the journal is unreadable")

// journal is the record of the transaction that is under way at one target. What
// recovery can see for itself, by the hash of the target, is not written down.
type journal struct {
	Schema int    `json:"schema"`
	Tx     string `json:"tx"`
	App    string `json:"app"`
	Kind   string `json:"kind"`
	Swap   string `json:"swap"`
	Target string `json:"target"` // the real file, links resolved
	Staged string `json:"staged"`
	Backup string `json:"backup,omitempty"` // empty on a first install
	State  State  `json:"state"`
	From   digest `json:"from"`
	To     digest `json:"to"`
	// What else is known of both, for people.
	FromRelease note `json:"from_release"`
	ToRelease   note `json:"to_release"`

	Started  time.Time     `json:"started"`
	Attempts int           `json:"attempts"` // how often the new version was about to be started
	Boot     string        `json:"boot_id,omitempty"`
	Since    time.Duration `json:"confirming_since,omitempty"` // of that boot's clock
	Within   time.Duration `json:"confirm_within,omitempty"`
	Deadline time.Time     `json:"deadline,omitzero"` // wall clock, for people

	Service      service.State `json:"service"` // before the swap
	Restart      bool          `json:"restart"` // whether the service is to run the new version
	Restarted    bool          `json:"restarted,omitempty"`
	PID          int           `json:"pid,omitempty"`           // after the restart
	BaselineSick bool          `json:"baseline_sick,omitempty"` // the old version failed its check before the swap
	Self         bool          `json:"self,omitempty"`          // the program is the agent itself

	Back  bool `json:"back,omitempty"`  // it goes back to a previous version
	Runs  int  `json:"runs,omitempty"`  // how often an installer's command was begun
	Undos int  `json:"undos,omitempty"` // and the one that puts things back

	HookRuns int          `json:"hook_runs,omitempty"` // of the hook of this state
	Hooks    []HookResult `json:"hooks,omitempty"`
	Code     string       `json:"code,omitempty"` // why it is reverting, reverted or failed
	Why      string       `json:"why,omitempty"`
}

// note is what a release is called.
type note struct {
	Version  string      `json:"version,omitempty"`
	Length   int64       `json:"length,omitempty"`
	Epoch    int64       `json:"epoch,omitempty"`
	Sequence int64       `json:"sequence,omitempty"`
	Retry    int64       `json:"retry,omitempty"`
	Mode     fs.FileMode `json:"mode,omitempty"`
}

func noteOf(r Release) note {
	return note{r.Version, r.Length, r.Epoch, r.Sequence, r.Retry, r.Mode}
}

func (n note) release(d digest) Release {
	return Release{Version: n.Version, SHA256: d, Length: n.Length, Epoch: n.Epoch, Sequence: n.Sequence, Retry: n.Retry, Mode: n.Mode}
}

func (j *journal) from() Release { return j.FromRelease.release(j.From) }
func (j *journal) to() Release   { return j.ToRelease.release(j.To) }

// digest is a SHA-256; all zero stands for a file that is not there.
type digest [sha256.Size]byte

func (d digest) absent() bool { return d == digest{} }

func (d digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText writes lower-case hex, and nothing for an absent file.
func (d digest) MarshalText() ([]byte, error) {
	if d.absent() {
		return []byte{}, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText reads what MarshalText writes, and only that.
func (d *digest) UnmarshalText(b []byte) error {
	*d = digest{}
	if len(b) == 0 {
		return nil
	}
	if len(b) != 2*len(d) || !bytes.Equal(b, bytes.ToLower(b)) {
		return errors.New("not a SHA-256 in lower-case hex")
	}
	if _, err := hex.Decode(d[:], b); err != nil {
		return err
	}
	if d.absent() {
		return errors.New("a SHA-256 of zeros")
	}
	return nil
}

// encode returns the file's content: one line of JSON and one with its SHA-256, so
// that a torn or spoilt record is never acted upon.
func (j *journal) encode() ([]byte, error) {
	b, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(b, "\nsha256:%x\n", sha256.Sum256(b)), nil
}

// parseJournal reads what encode wrote. Every error is an errJournal.
func parseJournal(b []byte) (*journal, error) {
	line, sum, ok := bytes.Cut(b, []byte("\n"))
	if !ok || string(sum) != fmt.Sprintf("sha256:%x\n", sha256.Sum256(line)) {
		return nil, fmt.Errorf("%w: its checksum is wrong", errJournal)
	}
	var schema struct{ Schema int }
	if err := json.Unmarshal(line, &schema); err != nil {
		return nil, fmt.Errorf("%w: %v", errJournal, err)
	}
	if schema.Schema != journalSchema {
		return nil, fmt.Errorf("%w: it has schema %d, this program knows %d", errJournal, schema.Schema, journalSchema)
	}
	j := new(journal)
	if err := json.Unmarshal(line, j); err != nil {
		return nil, fmt.Errorf("%w: %v", errJournal, err)
	}
	if err := j.check(); err != nil {
		return nil, fmt.Errorf("%w: %v", errJournal, err)
	}
	return j, nil
}

// check refuses a record that this package cannot have written. The names are what
// recovery removes and renames, so they must be the ones of the transaction.
func (j *journal) check() error {
	switch j.State {
	case Staged, Confirming, Confirmed, Reverting, Reverted, Failed:
	case Committing: // where it cannot be told from the target
		if j.Kind != KindInstaller {
			return fmt.Errorf("state %q of a %s", j.State, j.Kind)
		}
	default:
		return fmt.Errorf("unknown state %q", j.State)
	}
	if _, err := newSwapper(nil, j.Kind, j.Swap, j.Target); err != nil {
		return err
	}
	if j.Tx == "" || strings.ContainsAny(j.Tx, `/\`) || !filepath.IsAbs(j.Target) || filepath.Clean(j.Target) != j.Target {
		return errors.New("a bad name")
	}
	if j.Kind == KindTree && filepath.Base(j.Target) != currentName {
		return fmt.Errorf("%q is not the link of a tree", j.Target)
	}
	n := names{j.Target}
	if j.Staged != n.staged(j.Tx) {
		return fmt.Errorf("%q is not the staged file of %q", j.Staged, j.Target)
	}
	if _, ok := n.isPrevious(j.Backup); j.From.absent() != (j.Backup == "") || j.Backup != "" && !ok {
		return fmt.Errorf("%q is not a previous version of %q", j.Backup, j.Target)
	}
	if j.To.absent() || j.To == j.From || j.Attempts < 0 || j.Runs < 0 || j.Undos < 0 {
		return errors.New("an impossible record")
	}
	return nil
}

// store is the directory with the journal and the history of one target.
type store struct {
	fs  FS
	dir string
}

func (s store) journalPath() string { return filepath.Join(s.dir, "journal") }
func (s store) historyPath() string { return filepath.Join(s.dir, "history.jsonl") }
func (s store) lockPath() string    { return filepath.Join(s.dir, "lock") }

// load returns the journal, or nil when no transaction is under way.
func (s store) load() (*journal, error) {
	b, err := readFile(s.fs, s.journalPath(), maxJournal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, errTooLong) {
		return nil, fmt.Errorf("%w: it is longer than %d bytes", errJournal, maxJournal)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	return parseJournal(b)
}

// save makes j durable. It comes before whatever j announces.
func (s store) save(j *journal) error {
	b, err := j.encode()
	if err == nil {
		err = writeFile(s.fs, s.journalPath(), b)
	}
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	return nil
}

// drop removes the journal: the transaction is over.
func (s store) drop() error {
	err := s.fs.Remove(s.journalPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the journal: %w", err)
	}
	return s.fs.SyncDir(s.dir)
}

var errTooLong = errors.New("file is too long")

// readFile returns the content of a file of at most limit bytes.
func readFile(fsys FS, path string, limit int64) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, errTooLong
	}
	return b, nil
}

// writeFile replaces the content of path, durably and in one step.
func writeFile(fsys FS, path string, b []byte) error {
	tmp := path + ".tmp"
	f, err := fsys.Create(tmp)
	if errors.Is(err, fs.ErrExist) { // left by a crash
		if err := fsys.Remove(tmp); err != nil {
			return err
		}
		f, err = fsys.Create(tmp)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsys.Rename(tmp, path)
	}
	if err != nil {
		_ = fsys.Remove(tmp) // the next write removes it otherwise
		return err
	}
	return fsys.SyncDir(filepath.Dir(path))
}
