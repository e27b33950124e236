package apply

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shoal/agent/service"
)

func exampleJournal() *journal {
	n := names{memTarget}
	return &journal{
		Schema: journalSchema, Tx: "20261122T112000-abc", App: "acme", Kind: KindBinary, Swap: SwapRename, Target: memTarget,
		Staged: n.staged("20261122T112000-abc"), Backup: n.previous(3), State: Confirming,
		From: sum(oldProgram), To: sum(newProgram), FromRelease: note{Version: "1.0.0"},
		ToRelease: note{Version: "2.0.0", Length: 42, Epoch: 1, Sequence: 43, Retry: 1, Mode: 0o755},
		Started:   time.Date(2026, 11, 22, 11, 20, 0, 0, time.UTC), Attempts: 2, Boot: "b", Since: time.Hour, Within: time.Minute,
		Deadline: time.Date(2026, 11, 22, 11, 30, 0, 0, time.UTC), Service: service.State{Running: true, PID: 7}, Restart: true, PID: 9,
		Hooks: []HookResult{{Hook: hookPre, Output: "\x00<&>\n"}}, Why: "because",
	}
}

func TestJournalRoundTrip(t *testing.T) {
	for _, j := range []*journal{
		exampleJournal(),
		func() *journal { // a first install
			j := exampleJournal()
			j.From, j.Backup, j.FromRelease = digest{}, "", note{}
			return j
		}(),
	} {
		b, err := j.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseJournal(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(j, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestSpoiltJournalIsNeverBelieved(t *testing.T) {
	good, err := exampleJournal().encode()
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := parseJournal(good[:n]); !errors.Is(err, errJournal) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	for n := range good {
		b := bytes.Clone(good)
		b[n] ^= 0x20
		if _, err := parseJournal(b); !errors.Is(err, errJournal) {
			t.Fatalf("bit flipped at %d: %v", n, err)
		}
	}
	if _, err := parseJournal(append(bytes.Clone(good), "more\n"...)); !errors.Is(err, errJournal) {
		t.Errorf("with more at its end: %v", err)
	}
}

// sign gives text the checksum that makes it a journal.
func sign(text string) []byte {
	return fmt.Appendf(nil, "%s\nsha256:%x\n", text, sha256.Sum256([]byte(text)))
}

func TestImpossibleJournal(t *testing.T) {
	rows := []struct {
		name string
		set  func(*journal)
	}{
		{"future-schema", func(j *journal) { j.Schema = 2 }},
		{"unknown-state", func(j *journal) { j.State = "resting" }},
		{"state-that-is-never-written", func(j *journal) { j.State = Committing }},
		{"no-state", func(j *journal) { j.State = "" }},
		{"unknown-kind", func(j *journal) { j.Kind = "image" }},
		{"tree-of-another-name", func(j *journal) { j.Kind = KindTree }},
		{"unknown-swap", func(j *journal) { j.Swap = "copy" }},
		{"relative-target", func(j *journal) { j.Target = "acme" }},
		{"unclean-target", func(j *journal) { j.Target = "/opt/../etc/passwd" }},
		{"another-file-staged", func(j *journal) { j.Staged = "/etc/shadow" }},
		{"another-file-as-backup", func(j *journal) { j.Backup = "/etc/shadow" }},
		{"backup-number-zero", func(j *journal) { j.Backup = names{memTarget}.previous(0) }},
		{"path-in-the-name", func(j *journal) { j.Tx = "../x"; j.Staged = names{memTarget}.staged("../x") }},
		{"no-backup", func(j *journal) { j.Backup = "" }},
		{"backup-of-nothing", func(j *journal) { j.From = digest{} }},
		{"to-nothing", func(j *journal) { j.To = digest{} }},
		{"from-equals-to", func(j *journal) { j.To = j.From }},
		{"negative-attempts", func(j *journal) { j.Attempts = -1 }},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			j := exampleJournal()
			r.set(j)
			b, err := j.encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parseJournal(b); !errors.Is(err, errJournal) {
				t.Errorf("got %v", err)
			}
		})
	}
	for name, text := range map[string]string{
		"not-json": "schema", "a-list": "[1]", "future-schema-of-another-shape": `{"schema":9,"state":["x"]}`,
		"upper-case-digest": strings.Replace(`{"schema":1,"from":"X"}`, "X", strings.Repeat("AB", 32), 1),
		"short-digest":      `{"schema":1,"from":"ab"}`,
		"digest-of-zeros":   strings.Replace(`{"schema":1,"from":"X"}`, "X", strings.Repeat("00", 32), 1),
	} {
		if _, err := parseJournal(sign(text)); !errors.Is(err, errJournal) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An agent that was put back reads what the newer one wrote, if that kept the schema.
func TestJournalFieldsOfANewerAgentAreIgnored(t *testing.T) {
	good, err := exampleJournal().encode()
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(good), "\n")
	j, err := parseJournal(sign(strings.Replace(text, `"schema":1`, `"schema":1,"mood":"good"`, 1)))
	if err != nil || !reflect.DeepEqual(j, exampleJournal()) {
		t.Errorf("got %+v, %v", j, err)
	}
}

func FuzzParseJournal(f *testing.F) {
	good, err := exampleJournal().encode()
	if err != nil {
		f.Fatal(err)
	}
	text, _, _ := strings.Cut(string(good), "\n")
	f.Add(text)
	f.Add(`{"schema":1}`)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if j, err := parseJournal([]byte(text)); err == nil {
			t.Fatalf("without a checksum: %+v", j)
		}
		j, err := parseJournal(sign(text))
		if err != nil {
			if !errors.Is(err, errJournal) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		// Whatever it says, only files that belong to the target can be touched.
		n := names{j.Target}
		if j.Staged != n.staged(j.Tx) || !n.isLitter(j.Staged) {
			t.Fatalf("staged %q for target %q", j.Staged, j.Target)
		}
		if _, ok := n.isPrevious(j.Backup); j.Backup != "" && !ok {
			t.Fatalf("backup %q for target %q", j.Backup, j.Target)
		}
		b, err := j.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseJournal(b)
		if err != nil || !cmp.Equal(j, again) {
			t.Fatalf("it does not survive being written: %v", err)
		}
	})
}

func TestHistoryIsBounded(t *testing.T) {
	h := new(history)
	flood := strings.Repeat("<\x01", 32<<10)
	for i := range 300 {
		to := Release{Version: fmt.Sprint(i), SHA256: sum(fmt.Sprint(i)), Sequence: int64(i)}
		h.add(Record{Tx: fmt.Sprint(i), State: Reverted, To: to, Hooks: []HookResult{{Hook: hookPre, Output: flood}, {Hook: hookPost, Output: flood}}})
		h.mark(failedMark{SHA256: to.SHA256})
		h.learn(to.SHA256, noteOf(to))
	}
	b, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > maxHistory/2 {
		t.Errorf("%d bytes", len(b))
	}
	got := parseHistory(b)
	if len(got.Records) == 0 || got.Records[len(got.Records)-1].Tx != "299" || len(got.Records) > maxRecords {
		t.Errorf("%d records", len(got.Records))
	}
	if len(got.Marks) != maxFailedMarks || !got.failed(sum("299"), 0) || got.failed(sum("0"), 0) {
		t.Errorf("%d marks", len(got.Marks))
	}
	if len(got.Known) != maxKnown || got.called(sum("299")).Version != "299" {
		t.Errorf("%d known", len(got.Known))
	}
}

// An update that cannot begin is offered every few minutes, for ever.
func TestRepeatedAbortsAreOneRecord(t *testing.T) {
	h := new(history)
	h.add(Record{Tx: "0", State: Confirmed, To: Release{SHA256: sum("1")}})
	for i := range 500 {
		h.add(Record{Tx: fmt.Sprint(i + 1), State: Aborted, To: Release{SHA256: sum("2")}, Code: "no_space"})
	}
	h.add(Record{Tx: "501", State: Aborted, To: Release{SHA256: sum("2")}, Code: "permission"})
	if len(h.Records) != 3 || h.Records[1].Times != 500 || h.Records[1].Tx != "500" || h.abortedInARow(sum("2")) != 501 {
		t.Errorf("%d records: %+v", len(h.Records), h.Records)
	}
	if h.add(Record{Tx: "501", State: Aborted}) {
		t.Error("the same transaction was added twice")
	}
}

func TestSpoiltHistoryLineIsLeftOut(t *testing.T) {
	h := new(history)
	h.add(Record{Tx: "1", State: Confirmed})
	h.add(Record{Tx: "2", State: Reverted})
	h.mark(failedMark{SHA256: sum("2"), Retry: 1})
	b, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	got := parseHistory([]byte("{spoilt\n" + strings.Replace(string(b), `"tx":"1"`, `"tx":1`, 1) + "\n\n"))
	if len(got.Records) != 1 || got.Records[0].Tx != "2" || !got.failed(sum("2"), 1) || got.failed(sum("2"), 2) {
		t.Errorf("got %+v", got)
	}
}
