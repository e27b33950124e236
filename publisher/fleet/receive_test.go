package fleet_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/fleet"
)

// post sends a body as a report and returns the status and the answer.
func post(t *testing.T, url string, body io.Reader) (int, fleet.Answer) {
	t.Helper()
	res, err := http.Post(url+fleet.ReportsPath, "application/json", body)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var a fleet.Answer
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		t.Errorf("the answer with %s: %v", res.Status, err)
	}
	return res.StatusCode, a
}

func TestReportsOverASocket(t *testing.T) {
	w := newWorld(t)
	srv := httptest.NewServer(w)
	defer srv.Close()
	good := w.report("pos-1")
	for _, r := range []struct {
		name   string
		body   []byte
		status int
		code   fault.Code
	}{
		{"good", good, 200, fault.OK},
		{"replayed", good, 409, fault.Rollback},
		{"cut-off", good[:100], 400, fault.Malformed},
		{"huge", bytes.Repeat([]byte(" "), manifest.MaxReport+1), 413, fault.TooLarge},
		{"another-fleet", w.report("pos-1", func(r *manifest.Report) { r.Repo = manifest.Sum(nil) }), 403, fault.WrongTarget},
	} {
		t.Run(r.name, func(t *testing.T) {
			if status, a := post(t, srv.URL, bytes.NewReader(r.body)); status != r.status || a.Code != r.code || a.Approved {
				t.Errorf("%d %+v, want %d %s", status, a, r.status, r.code)
			}
		})
	}
	w.approve("pos-1")
	w.pass(time.Second)
	if status, a := post(t, srv.URL, bytes.NewReader(w.report("pos-1"))); status != 200 || !a.Approved {
		t.Errorf("approved: %d %+v", status, a)
	}
	if res, err := http.Get(srv.URL + fleet.ReportsPath); err != nil || res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %v, %v", res, err)
	}
}

// A flood from one address is cut off, and leaves room for who comes from another.
func TestFloodFromOneAddress(t *testing.T) {
	w := newWorld(t)
	srv := httptest.NewServer(w)
	defer srv.Close()
	statuses := map[int]int{}
	for i := range 150 {
		status, _ := post(t, srv.URL, bytes.NewReader(w.report(fmt.Sprintf("stranger-%d", i))))
		statuses[status]++
	}
	if statuses[200] != 100 || statuses[429] != 50 {
		t.Errorf("strangers: %v", statuses)
	}
	clear(statuses)
	for range 2000 {
		status, _ := post(t, srv.URL, strings.NewReader("{}"))
		statuses[status]++
	}
	if statuses[429] < 100 || statuses[400] < 1500 {
		t.Errorf("junk: %v", statuses)
	}
	w.approve("stranger-1")
	w.pass(time.Minute)
	if status, a := post(t, srv.URL, bytes.NewReader(w.report("stranger-1"))); status != 200 || !a.Approved {
		t.Errorf("a minute later: %d %+v", status, a)
	}
}

// BenchmarkReports has 10,000 approved machines report over HTTP, as fast as they are
// taken in: signatures verified, everything on the disk. The processor time is that of
// the store, the server and the clients together.
func BenchmarkReports(b *testing.B) {
	const machines, clients = 10_000, 256
	w := newWorld(b, func(c *fleet.Config) { c.CommitEvery = 0 })
	var first [][]byte
	for i := range machines {
		first = append(first, w.report(fmt.Sprintf("pos-%d", i)))
	}
	approveAll(b, w, first)
	srv := httptest.NewServer(w)
	defer srv.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients, DialContext: (&net.Dialer{}).DialContext}}
	round, used := 0, time.Duration(0)
	for b.Loop() {
		round++
		w.pass(10 * time.Minute)
		b.StopTimer()
		envs := make([][]byte, machines)
		for i := range envs {
			envs[i] = w.report(fmt.Sprintf("pos-%d", i), func(r *manifest.Report) { r.Apps[0].Bytes.LAN = int64(round) })
		}
		b.StartTimer()
		used -= cpu()
		next := make(chan []byte, clients)
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				for env := range next {
					res, err := client.Post(srv.URL+fleet.ReportsPath, "application/json", bytes.NewReader(env))
					if err != nil {
						b.Error(err)
						continue
					}
					if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
						b.Errorf("%s, %v", res.Status, err)
					}
					res.Body.Close()
				}
			})
		}
		for _, env := range envs {
			w.pass(10 * time.Millisecond) // so that they come from one address at the pace it may have
			next <- env
		}
		close(next)
		wg.Wait()
		used += cpu()
	}
	b.ReportMetric(float64(used.Microseconds())/float64(b.N*machines), "cpu-µs/report")
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapInuse)/1e6, "MB-heap")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*machines), "µs/report")
}

// approveAll lets those who sign envs count, without having reported.
func approveAll(t testing.TB, w *world, envs [][]byte) {
	var lines strings.Builder
	for _, env := range envs {
		_, key, err := manifest.OpenReport(env, w.f.Pin())
		if err != nil {
			t.Fatal(err)
		}
		lines.WriteString(key.String() + "\n")
	}
	if err := os.WriteFile(filepath.Join(w.dir, "agents.allow"), []byte(lines.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	w.reopen()
}

// FuzzReadReports: no file makes more of reports than it holds.
func FuzzReadReports(f *testing.F) {
	f.Add([]byte(`{"a":1}{"b":2}` + "\n" + `{}`))
	f.Add([]byte(`[{}]`))
	f.Add([]byte(strings.Repeat(" ", 1<<17) + `{"a":"` + strings.Repeat("x", 1<<16) + `"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		envs, err := fleet.ReadReports(bytes.NewReader(b))
		if err != nil && envs != nil {
			t.Error("reports and an error")
		}
		sum := 0
		for _, e := range envs {
			if sum += len(e); len(e) > manifest.MaxReport || !json.Valid(e) {
				t.Errorf("report of %d bytes", len(e))
			}
		}
		if sum > len(b) {
			t.Errorf("%d bytes of reports from %d", sum, len(b))
		}
	})
}

func TestReportsFileThatIsHuge(t *testing.T) {
	huge := io.MultiReader(strings.NewReader(`{"a":"`), &endless{})
	if _, err := fleet.ReadReports(huge); fault.CodeOf(err) != fault.TooLarge {
		t.Errorf("%v", err)
	}
}

// endless is a file without an end.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	if e.read += len(p); e.read > 1<<24 {
		return 0, io.ErrUnexpectedEOF
	}
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
