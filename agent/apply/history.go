package apply

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

const (
	maxHistory     = 4 << 20 // bytes read; what is written stays well below
	keepHistory    = 1 << 20 // bytes written, but for the latest record
	maxRecords     = 50
	maxFailedMarks = 64
	maxKnown       = 64
)

// Record is one finished transaction, or several of the same kind in a row.
type Record struct {
	Tx       string // the last one's name
	Ended    time.Time
	State    State // Confirmed, Reverted, Aborted or Failed
	From, To Release
	Attempts int    // how often the new version was started
	Times    int    // how many transactions in a row were aborted for the same reason
	Code     string // of the failure, empty when there was none
	Why      string // what was seen
	Hooks    []HookResult
}

// history is what is remembered of one target: a file of JSON lines, each with one
// of the members of line.
type history struct {
	Records []Record     // oldest first
	Marks   []failedMark // oldest first
	Known   []known      // least recently confirmed first
}

// line is one line of the file.
type line struct {
	Record *record     `json:"record,omitempty"`
	Failed *failedMark `json:"failed,omitempty"`
	Known  *known      `json:"known,omitempty"`
}

// record is a Record as it is stored.
type record struct {
	Tx          string       `json:"tx"`
	Ended       time.Time    `json:"ended"`
	State       State        `json:"state"`
	From        digest       `json:"from"`
	To          digest       `json:"to"`
	FromRelease note         `json:"from_release"`
	ToRelease   note         `json:"to_release"`
	Attempts    int          `json:"attempts,omitempty"`
	Times       int          `json:"times,omitempty"`
	Code        string       `json:"code,omitempty"`
	Why         string       `json:"why,omitempty"`
	Hooks       []HookResult `json:"hooks,omitempty"`
}

// failedMark says that an artifact failed here. It binds to the content, whatever
// manifest offers it, until rollout.retry rises above Retry.
type failedMark struct {
	SHA256  digest    `json:"sha256"`
	Retry   int64     `json:"retry"`
	Version string    `json:"version,omitempty"`
	At      time.Time `json:"at"`
	Why     string    `json:"why,omitempty"`
}

// known is what the program with that hash is called.
type known struct {
	SHA256  digest `json:"sha256"`
	Release note   `json:"release"`
}

// history reads the file. A line that does not parse is left out: what it said is
// lost with it, and nothing here is needed to keep a program whole.
func (s store) history() (*history, error) {
	b, err := readFile(s.fs, s.historyPath(), maxHistory)
	if errors.Is(err, fs.ErrNotExist) {
		return &history{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the history: %w", err)
	}
	return parseHistory(b), nil
}

func parseHistory(b []byte) *history {
	h := new(history)
	for raw := range bytes.Lines(b) {
		var l line
		if json.Unmarshal(raw, &l) != nil {
			continue
		}
		switch {
		case l.Record != nil:
			r := l.Record
			h.Records = append(h.Records, Record{
				Tx: r.Tx, Ended: r.Ended, State: r.State, From: r.FromRelease.release(r.From), To: r.ToRelease.release(r.To),
				Attempts: r.Attempts, Times: r.Times, Code: r.Code, Why: r.Why, Hooks: r.Hooks,
			})
		case l.Failed != nil:
			h.Marks = append(h.Marks, *l.Failed)
		case l.Known != nil:
			h.Known = append(h.Known, *l.Known)
		}
	}
	return h
}

// catalogue is the history with what a transaction under way knows.
func (s store) catalogue() (*history, error) {
	h, err := s.history()
	if err != nil {
		return nil, err
	}
	if j, err := s.load(); err == nil && j != nil {
		h.learn(j.From, j.FromRelease)
		h.learn(j.To, j.ToRelease)
	}
	return h, nil
}

func (h *history) encode() ([]byte, error) {
	var head, records [][]byte
	add := func(to *[][]byte, l line) error {
		b, err := json.Marshal(l)
		*to = append(*to, append(b, '\n'))
		return err
	}
	var errs []error
	for _, k := range h.Known {
		errs = append(errs, add(&head, line{Known: &k}))
	}
	for _, m := range h.Marks {
		errs = append(errs, add(&head, line{Failed: &m}))
	}
	for _, r := range h.Records {
		errs = append(errs, add(&records, line{Record: &record{
			Tx: r.Tx, Ended: r.Ended, State: r.State, From: r.From.SHA256, To: r.To.SHA256, FromRelease: noteOf(r.From), ToRelease: noteOf(r.To),
			Attempts: r.Attempts, Times: r.Times, Code: r.Code, Why: r.Why, Hooks: r.Hooks,
		}}))
	}
	size := 0
	for i, b := range slices.Backward(records) {
		size += len(b)
		if size > keepHistory && i < len(records)-1 {
			records = records[i+1:]
			break
		}
	}
	return bytes.Join(append(head, records...), nil), errors.Join(errs...)
}

// add appends r, unless it is there already: a crash may have come between this and
// the end of the transaction.
func (h *history) add(r Record) (added bool) {
	if n := len(h.Records); n > 0 {
		last := h.Records[n-1]
		if last.Tx == r.Tx {
			return false
		}
		// An update that cannot start is tried again and again; it must not push
		// everything else out.
		if r.State == Aborted && last.State == Aborted && r.To.SHA256 == last.To.SHA256 && r.Code == last.Code {
			r.Times = max(last.Times, 1) + 1
			h.Records = h.Records[:n-1]
		}
	}
	h.Records = append(h.Records, r)
	h.Records = h.Records[max(0, len(h.Records)-maxRecords):]
	return true
}

// abortedInARow counts the latest transactions that were to install d and aborted.
func (h *history) abortedInARow(d digest) int {
	count := 0
	for _, r := range slices.Backward(h.Records) {
		if r.State != Aborted || r.To.SHA256 != d {
			break
		}
		count += max(r.Times, 1)
	}
	return count
}

// mark remembers that an artifact failed.
func (h *history) mark(m failedMark) {
	h.unmark(m.SHA256)
	h.Marks = append(h.Marks, m)
	h.Marks = h.Marks[max(0, len(h.Marks)-maxFailedMarks):]
}

func (h *history) unmark(d digest) {
	h.Marks = slices.DeleteFunc(h.Marks, func(m failedMark) bool { return m.SHA256 == d })
}

// failed reports whether d failed here and retry asks for no new try.
func (h *history) failed(d digest, retry int64) bool {
	return slices.ContainsFunc(h.Marks, func(m failedMark) bool { return m.SHA256 == d && retry <= m.Retry })
}

// learn remembers what a program is called.
func (h *history) learn(d digest, n note) {
	if d.absent() || n == (note{Length: n.Length}) {
		return
	}
	n.Retry, n.Mode = 0, 0
	h.Known = slices.DeleteFunc(h.Known, func(k known) bool { return k.SHA256 == d })
	h.Known = append(h.Known, known{d, n})
	h.Known = h.Known[max(0, len(h.Known)-maxKnown):]
}

// called returns what is known of the program with that hash.
func (h *history) called(d digest) note {
	for _, k := range h.Known {
		if k.SHA256 == d {
			return k.Release
		}
	}
	return note{}
}

// saveHistory makes h durable.
func (s store) saveHistory(h *history) error {
	b, err := h.encode()
	if err == nil {
		err = writeFile(s.fs, s.historyPath(), b)
	}
	if err != nil {
		return fmt.Errorf("writing the history: %w", err)
	}
	return nil
}
