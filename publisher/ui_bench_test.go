package publisher

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/keys/keystest"
	"shoal/manifest"
)

// manyMachines puts n approved machines into the store, all with something to say.
func manyMachines(t testing.TB, f *testFleet, n int, sha256 manifest.Digest) {
	t.Helper()
	p := f.open()
	id, err := p.repo.FleetID()
	if err != nil {
		t.Fatal(err)
	}
	var allow strings.Builder
	envs := make([][]byte, n)
	for i := range n {
		key := keystest.New(t, fmt.Sprintf("pos-%d", i))
		allow.WriteString(key.Public().String() + "\n")
		r := &manifest.Report{
			Repo: manifest.Digest(id), Agent: key.Public().ID(), Counter: 1, Time: f.now,
			Host: fmt.Sprintf("pos-%05d", i), Platform: manifest.Platform{OS: "linux", Arch: "amd64"}, AgentVersion: "1.0.0", RootVersion: 1,
			Labels: []manifest.Label{{Name: "site", Value: fmt.Sprintf("site-%d", i%60)}, {Name: "ring", Value: "broad"}},
			Apps: []manifest.AppReport{{
				App: "acme", Channel: "stable", Epoch: 1, Sequence: 1, Version: "1.0.0", SHA256: sha256, Offered: sha256,
				State: manifest.StateHealthy, Freshness: manifest.FreshCurrent, Bytes: manifest.ByteCount{LAN: 900 << 20, Origin: 1 << 20},
			}},
		}
		if i%50 == 0 {
			r.Host = strings.Repeat(`<"'&>`, 50)
			r.Apps[0].State = manifest.StateFailed
			r.Apps[0].Why = &manifest.Why{Code: "health_failed", Text: strings.Repeat(`<"'&>`, 50), Next: strings.Repeat(`<"'&>`, 50)}
		}
		payload, err := manifest.DraftReport(r)
		if err != nil {
			t.Fatal(err)
		}
		envs[i] = f.sign(payload, manifest.TypeReport, key)
	}
	if err := os.WriteFile(filepath.Join(f.cfg.Store, "agents.allow"), []byte(allow.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	store, err := p.openReports()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := store.Import(context.Background(), envs); err != nil || got.Taken != n {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// others returns what has another of many machines report, each time.
func others(w *watched, sha256 manifest.Digest) func() {
	w.counter = 1 // of the report that each has sent
	n := 0
	return func() {
		n++
		w.reports(fmt.Sprintf("pos-%d", n), manifest.StateHealthy, sha256)
	}
}

const crowdSize = 10_000

// firstByte measures one request, of which only the time to the first byte counts, and
// returns its size. The timer is stopped before and after.
func firstByte(b *testing.B, url string, worst *time.Duration) int64 {
	b.StartTimer()
	began := time.Now()
	res, err := http.Get(url)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	var one [1]byte
	io.ReadFull(res.Body, one[:])
	*worst = max(*worst, time.Since(began))
	b.StopTimer()
	if res.StatusCode != http.StatusOK {
		b.Fatal(res.Status)
	}
	size, _ := io.Copy(io.Discard, res.Body)
	return size + 1
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// BenchmarkFirstByte is how long the pages take with 10,000 machines until the first byte,
// over a socket, while machines report and the fleet is counted anew each time.
func BenchmarkFirstByte(b *testing.B) {
	f := newFleet(b, 1, "release-1@acme")
	res := f.publish("1.0.0", "content")
	manyMachines(b, f, crowdSize, res.Artifacts[0].SHA256)
	w := watch(b, f)
	another := others(w, res.Artifacts[0].SHA256)
	for _, path := range append(pages, "/metrics", "/api/v1/overview") {
		b.Run(strings.ReplaceAll(path, "/", "_"), func(b *testing.B) {
			size, worst := int64(0), time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				another()
				time.Sleep(200 * time.Millisecond)
				size = firstByte(b, w.url(path), &worst)
				b.StartTimer()
			}
			b.ReportMetric(float64(size)/1000, "kB")
			b.ReportMetric(milliseconds(worst), "worst-ms")
			if !strings.HasPrefix(path, "/api") && path != "/metrics" && size > 300<<10 {
				b.Errorf("%s has %d bytes", path, size)
			}
		})
	}
}

// BenchmarkFirstByteCold is the same of the first page that anybody asks for: after a time
// in which machines reported and nobody looked, after the publisher was started, and after
// an operator did something, which has to be seen on it.
func BenchmarkFirstByteCold(b *testing.B) {
	f := newFleet(b, 1, "release-1@acme")
	res := f.publish("1.0.0", "content")
	manyMachines(b, f, crowdSize, res.Artifacts[0].SHA256)
	w := watch(b, f)
	another := others(w, res.Artifacts[0].SHA256)
	for _, row := range []struct {
		name   string
		before func()
	}{
		{"quiet", func() {
			for end := time.Now().Add(25 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
				another()
			}
		}},
		{"started", func() {
			if err := w.stop(); err != nil {
				b.Fatal(err)
			}
			*w = *watch(b, f)
		}},
		{"act", func() {
			if r, body := w.request("/api/v1/agents/pos-09001/label", `{"notes":[{"name":"room","value":"1"}]}`, bearer(testOperator)...); r.StatusCode != http.StatusOK {
				b.Fatalf("%s: %s", r.Status, body)
			}
		}},
	} {
		b.Run(row.name, func(b *testing.B) {
			worst := time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				row.before()
				firstByte(b, w.url("/"), &worst)
				b.StartTimer()
			}
			b.ReportMetric(milliseconds(worst), "worst-ms")
		})
	}
}
