package metrics_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"shoal/agent"
	"shoal/agent/metrics"
	"shoal/internal/fault"
	"shoal/manifest"
)

func status() *agent.Status {
	return &agent.Status{Version: "1.0.0", RootExpires: time.Unix(2000000000, 0), Apps: []agent.AppStatus{{
		App: "acme", Channel: "stable", State: manifest.StateHeld, Version: "2.4.0", Sequence: 42, Expires: time.Unix(1900000000, 0),
		Why: &agent.Why{Code: fault.Held}, LastCheck: &agent.CheckStatus{At: time.Unix(1800000000, 0), Code: fault.Same},
		Update: &agent.UpdateStatus{Bytes: agent.Bytes{LAN: 900, Origin: 100}, Seconds: 4.5, Phases: []agent.Phase{
			{State: manifest.StateDownloading, Seconds: 3.5}, {State: manifest.StateConfirming, Seconds: 1},
		}}, Given: 7,
	}}}
}

var wanted = []string{
	`shoal_agent_state{channel="acme/stable",state="held",version="2.4.0"} 1`,
	`shoal_manifest_expiry_timestamp_seconds{channel="acme/stable"} 1.9e+09`,
	`shoal_update_blocked{channel="acme/stable",code="held"} 1`,
	`shoal_update_received_bytes{channel="acme/stable",source="lan"} 900`,
	`shoal_update_duration_seconds{channel="acme/stable",phase="downloading"} 3.5`,
	`shoal_update_duration_seconds{channel="acme/stable",phase="confirming"} 1`,
	`shoal_agent_last_check_ok{channel="acme/stable"} 1`,
	`shoal_bytes_total{channel="acme/stable",dir="up"} 7`,
}

func TestSocketAndFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("skipped: metrics.listen takes a Unix socket")
	}
	dir, err := os.MkdirTemp("", "m") // the name of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	sock, file := filepath.Join(dir, "s"), filepath.Join(dir, "shoal.prom")
	c := metrics.Config{Listen: "unix:" + sock, File: file, Status: status, Logger: slog.New(slog.DiscardHandler)}
	for range 2 { // the second one finds the socket of the first
		l, err := c.Listener()
		if err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(sock); err != nil || fi.Mode().Perm() != 0o660 {
			t.Errorf("the socket is %v, %v", fi, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.Run(ctx, l); close(done) }()
		client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", sock)
		}}}
		res, err := client.Get("http://agent/metrics")
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		for _, line := range wanted {
			if !strings.Contains(string(b), line+"\n") {
				t.Errorf("the socket does not say %q:\n%s", line, b)
			}
		}
		cancel()
		<-done
	}
	b, err := os.ReadFile(file)
	for _, line := range wanted {
		if err != nil || !strings.Contains(string(b), line+"\n") {
			t.Errorf("the file does not say %q: %v", line, err)
		}
	}
}

func TestListenTakesAUnixSocketAlone(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for listen, want := range map[string]fault.Code{":9100": fault.Config, "127.0.0.1:9100": fault.Config, "unix:": fault.Config, "unix:" + plain: fault.IO} {
		c := metrics.Config{Listen: listen}
		if _, err := c.Listener(); fault.CodeOf(err) != want {
			t.Errorf("%q: %v", listen, err)
		}
	}
	if b, err := os.ReadFile(plain); err != nil || string(b) != "mine" {
		t.Errorf("a file in its place is %q, %v", b, err)
	}
}
