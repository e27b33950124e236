package fleet_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"shoal/internal/control"
	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/fleet"
)

// Whatever strangers say, and however much of it, people can look at the fleet of a
// running process and take in what came in files.
func TestStrangersCannotStopACommand(t *testing.T) {
	w := newWorld(t)
	l, err := control.Listen(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: control.Handler(w.Commands())}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	f, err := fleet.Connect(t.Context(), w.cfg)
	if err != nil {
		t.Fatal(err)
	}

	// In JSON that is safe in a page, each of these takes six bytes.
	words := strings.Repeat("<", 256)
	var envs [][]byte
	for i := range fleet.MaxAgentsPage {
		envs = append(envs, w.report(fmt.Sprintf("stranger-%d", i), func(r *manifest.Report) {
			r.Host = words[:253]
			for range 31 {
				r.Events = append(r.Events, manifest.EventCount{Code: fault.Rollback, Count: 1, Detail: words})
			}
		}))
	}
	got, err := f.Import(t.Context(), envs)
	if err != nil || got.Taken != len(envs) {
		t.Fatalf("imported %+v, %v", got, err)
	}
	page, err := f.Agents(t.Context(), fleet.Query{})
	if err != nil || len(page.Agents) != len(envs) {
		t.Fatalf("listed %v, %v", page, err)
	}

	// An envelope has room for such bytes, too, where nobody reads them.
	padded := []byte(`{"x":"` + strings.Repeat("<", manifest.MaxReport-8) + `"}`)
	if got, err := f.Import(t.Context(), [][]byte{padded, w.report("pos-1")}); err != nil || got.Taken != 1 || len(got.Refused) != 1 {
		t.Errorf("imported %+v, %v; want one refused and one taken", got, err)
	}
}
