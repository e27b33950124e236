package fleet

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
)

const (
	allowFile = "agents.allow"
	maxAllow  = 16 << 20 // bytes; a line of a key is about 100
	allowHead = "# Keys of machines whose reports count, one a line. shoal fleet approve adds to it.\n"
)

// allowed is what agents.allow says.
type allowed struct {
	keys  map[keys.ID]bool
	size  int64
	mtime time.Time
}

// approved reports whether a counts. The caller holds mu, for reading at least.
func (s *Store) approved(a *Agent) bool {
	return s.allow.keys[a.ID] || s.cfg.Approve == ApproveMembers && a.Member
}

// readAllowed reads agents.allow if it has changed since it was read.
func (s *Store) readAllowed() error {
	path := filepath.Join(s.cfg.Dir, allowFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		s.setAllowed(allowed{})
		return nil
	}
	if err != nil {
		return failure("reading who is approved", err)
	}
	s.mu.RLock()
	same := s.allow.keys != nil && s.allow.size == info.Size() && s.allow.mtime.Equal(info.ModTime())
	s.mu.RUnlock()
	if same {
		return nil
	}
	b, err := readFile(path, maxAllow)
	if err != nil {
		return failure("reading who is approved", err)
	}
	ids, err := parseAllowed(b)
	if err != nil {
		return err
	}
	s.setAllowed(allowed{ids, info.Size(), info.ModTime()})
	return nil
}

func (s *Store) setAllowed(a allowed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allow = a
	s.strangers = 0
	for _, a := range s.agents {
		if !s.approved(a) {
			s.strangers++
		}
	}
}

// parseAllowed reads lines as in authorized_keys, without options.
func parseAllowed(b []byte) (map[keys.ID]bool, error) {
	ids := map[keys.ID]bool{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		k, err := keys.ParsePublicKey(line)
		if err != nil {
			return nil, fault.New(fault.BadKey, "%s:%d: %w", allowFile, n, err).
				Line("Until it is put right, the machines that were approved before count, and no others.")
		}
		ids[k.ID()] = true
	}
	if err := lines.Err(); err != nil {
		return nil, fault.New(fault.Malformed, "reading %s: %w", allowFile, err)
	}
	return ids, nil
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fault.New(fault.TooLarge, "%q is larger than %d bytes", path, limit)
	}
	return b, err
}

// editAllowed adds keys to agents.allow, and takes those of gone out. Lines it does not
// touch stay as they are. The caller does not hold mu.
func (s *Store) editAllowed(add []keys.PublicKey, gone map[keys.ID]bool) error {
	s.editing.Lock()
	defer s.editing.Unlock()
	path := filepath.Join(s.cfg.Dir, allowFile)
	b, err := readFile(path, maxAllow)
	if errors.Is(err, fs.ErrNotExist) {
		b, err = []byte(allowHead), nil
	}
	if err != nil {
		return failure("reading who is approved", err)
	}
	there, err := parseAllowed(b)
	if err != nil {
		return err
	}
	var out strings.Builder
	for line := range strings.Lines(string(b)) {
		if k, err := keys.ParsePublicKey(line); err == nil && gone[k.ID()] {
			continue
		}
		out.WriteString(strings.TrimRight(line, "\r\n") + "\n")
	}
	for _, k := range add {
		if !there[k.ID()] {
			out.WriteString(k.String() + "\n")
		}
	}
	if out.String() != string(b) {
		if err := durable.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			return failure("keeping who is approved", err)
		}
	}
	return s.readAllowed()
}

// Approve makes the reports of machines count from now on, named by their ids or eight or
// more letters from the beginning of one, and never by what they call themselves; all that
// are waiting for it, if pending is set. It returns those that were not approved before.
func (s *Store) Approve(_ context.Context, names []string, pending bool) ([]*Agent, error) {
	var chosen []*Agent
	for _, name := range names {
		a, err := s.findKey(name)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, a)
	}
	if pending {
		chosen = append(chosen, s.snapshot(s.now())...)
	}
	chosen = slices.DeleteFunc(chosen, func(a *Agent) bool { return s.isAllowed(a.ID) || pending && a.Approved })
	var add []keys.PublicKey
	for _, a := range chosen {
		k, err := keys.ParsePublicKey(a.Key)
		if err != nil {
			return nil, fault.New(fault.BadKey, "reading the key of %s: %w", a.ID, err)
		}
		add = append(add, k)
	}
	if err := s.editAllowed(add, nil); err != nil {
		return nil, err
	}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, a := range chosen {
		s.logEvent(Event{Kind: KindAgentApproved, Agent: a.ID, Host: a.Report.Host}, ofPeople, "")
		if a := s.agents[a.ID]; a != nil {
			chosen[i] = s.view(a, now)
		}
	}
	s.wake()
	return chosen, nil
}

func (s *Store) isAllowed(id keys.ID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.allow.keys[id]
}

// Label notes words of people about a machine, which are shown and decide nothing: rings
// are the machine's own labels. An empty value takes a note away.
func (s *Store) Label(ctx context.Context, name string, notes []manifest.Label) (*Agent, error) {
	found, err := s.find(name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	old := s.agents[found.ID]
	if old == nil {
		s.mu.Unlock()
		return nil, unknown(name)
	}
	a := *old
	a.Notes = slices.Clone(a.Notes)
	for _, n := range notes {
		if !manifest.ValidName(n.Name) || len(n.Value) > maxNoteText {
			s.mu.Unlock()
			return nil, fault.New(fault.Usage, "%q is no note: NAME=TEXT, of at most %d bytes", n.Name+"="+n.Value, maxNoteText)
		}
		a.Notes = slices.DeleteFunc(a.Notes, func(o manifest.Label) bool { return o.Name == n.Name })
		if n.Value != "" {
			a.Notes = append(a.Notes, n)
		}
	}
	if len(a.Notes) > maxNotes {
		s.mu.Unlock()
		return nil, fault.New(fault.Usage, "a machine has at most %d notes", maxNotes)
	}
	s.put(a.ID, &a)
	b, view := s.wake(), s.view(&a, s.now())
	s.mu.Unlock()
	return view, b.written(ctx)
}

// Forget removes machines, named as in [Store.Find], and their approval.
func (s *Store) Forget(ctx context.Context, names []string) ([]*Agent, error) {
	var gone []*Agent
	ids := map[keys.ID]bool{}
	for _, name := range names {
		a, err := s.find(name)
		if err != nil {
			return nil, err
		}
		if !ids[a.ID] {
			gone = append(gone, a)
		}
		ids[a.ID] = true
	}
	if err := s.editAllowed(nil, ids); err != nil {
		return nil, err
	}
	s.mu.Lock()
	for _, a := range gone {
		s.forget(a, ofPeople, "by a person")
	}
	b := s.wake()
	s.mu.Unlock()
	return gone, b.written(ctx)
}

// forget removes the machine of which a is a view. Where it counted, its counter is kept:
// what it reported before must not be taken for news should its key count again, or still.
// The caller holds mu.
func (s *Store) forget(a *Agent, sh share, why string) {
	if a.Approved {
		s.logEvent(Event{Kind: KindAgentForgotten, Agent: a.ID, Host: a.Report.Host, Text: why}, sh, "")
	}
	s.put(a.ID, nil)
	if a.Approved {
		s.forgotten[a.ID] = a.Report.Counter
	}
	delete(s.paces, a.ID)
}

func unknown(name string) error {
	return fault.New(fault.NotFound, "no machine %q has reported here", name).Do("shoal fleet list")
}
