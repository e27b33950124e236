package nettest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// serveVar has the test program be a web server for the files in the directory it names.
const serveVar = "NETTEST_SERVE"

const mirrorAddr = "10.99.7.10:80" // of machine 0

// serveFiles is that web server: it knows ranges, and nothing of Shoal.
func serveFiles(dir string) error {
	l, err := net.Listen("tcp", mirrorAddr)
	if err != nil {
		return err
	}
	return http.Serve(l, http.FileServer(http.Dir(dir)))
}

// nginxConf serves a directory as a distribution's default does, in the foreground.
const nginxConf = `daemon off; pid %[1]s/nginx.pid; error_log %[1]s/error.log; user root;
events {}
http { access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s;
  uwsgi_temp_path %[1]s; scgi_temp_path %[1]s; server { listen ` + mirrorAddr + `; root %[2]s; } }
`

// webServer has the machine serve a directory, with nginx where that is installed.
func (m *machine) webServer(dir string) {
	t := m.lan.t
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := []string{self}
	if nginx, err := exec.LookPath("nginx"); err == nil {
		conf := filepath.Join(m.dir, "nginx.conf")
		if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConf, m.dir, dir), 0o644); err != nil {
			t.Fatal(err)
		}
		command = []string{nginx, "-c", conf, "-e", filepath.Join(m.dir, "error.log")}
	}
	t.Logf("the web server is %s", filepath.Base(command[0]))
	server := m.command(context.Background(), "", command...)
	server.Env = append(server.Env, serveVar+"="+dir)
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Signal(os.Interrupt) // nginx ends its workers
		server.Wait()
	})
}

// Clients that know nothing of Shoal fetch a release from what `shoal mirror push` wrote,
// behind a web server that knows nothing of it either. The publisher is not running, and
// in a fleet with a key no stranger could reach it.
func TestLongNetStockClients(t *testing.T) {
	const (
		platform = runtime.GOOS + "-" + runtime.GOARCH
		release  = "/releases/acme/1.0.0/" + platform
		named    = "acme-" + platform // in the torrent
	)
	clients := []struct {
		name    string
		command string // in a directory with acme.torrent; the file comes to be there
		out     string
		goesOn  bool // until it is ended
	}{
		{"curl", "curl -fsSO http://" + mirrorAddr + release, platform, false},
		{"curl-in-two-parts", "curl -fsS -r 0-999999 -o part http://" + mirrorAddr + release +
			" && curl -fsS -C - -o part http://" + mirrorAddr + release, "part", false},
		{"aria2c", "aria2c --enable-dht=false --bt-enable-lpd=false --seed-time=0 acme.torrent", named, false},
		{"transmission-cli", "transmission-cli -er -w . acme.torrent", named, true},
	}
	for _, fleet := range []string{"with-a-fleet-key", "open"} {
		t.Run(fleet, func(t *testing.T) {
			n := newLAN(t)
			dir := t.TempDir()
			program := make([]byte, 8<<20)
			rand.Read(program)
			if err := os.WriteFile(filepath.Join(dir, "acme"), program, 0o755); err != nil {
				t.Fatal(err)
			}
			publish := `$SHOAL init --app acme --channel stable --dir pub --no-passphrase --public-url https://10.99.7.99:7800 $OPEN
echo "mirrors: [ 'http://` + mirrorAddr + `' ]" >> pub/publisher.yaml
$SHOAL --config pub/publisher.yaml publish --version 1.0.0 --platform ` + runtime.GOOS + "/" + runtime.GOARCH + `=acme
$SHOAL --config pub/publisher.yaml mirror push mirror`
			cmd := exec.Command("sh", "-ec", publish)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "SHOAL="+shoal)
			if fleet == "open" {
				cmd.Env = append(cmd.Env, "OPEN=--no-fleet-key")
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			web, m := n.plug(0), n.plug(1)
			web.webServer(filepath.Join(dir, "mirror"))
			torrent := m.shell(dir, "curl -fsS --retry 30 --retry-all-errors --retry-delay 1 http://"+mirrorAddr+release+".torrent", nil)
			for _, c := range clients {
				t.Run(c.name, func(t *testing.T) {
					tool, _, _ := strings.Cut(c.command, " ")
					if _, err := exec.LookPath(tool); err != nil {
						t.Skipf("%s is not installed", tool)
					}
					where := t.TempDir()
					if err := os.WriteFile(filepath.Join(where, "acme.torrent"), []byte(torrent), 0o644); err != nil {
						t.Fatal(err)
					}
					whole := func() bool {
						b, err := os.ReadFile(filepath.Join(where, c.out))
						return err == nil && sha256.Sum256(b) == sha256.Sum256(program)
					}
					var until func() bool
					if c.goesOn {
						until = whole
					}
					if out := m.shell(where, c.command, until); !whole() {
						t.Errorf("%s\ncame to an end without the file:\n%s", c.command, out)
					}
				})
			}
		})
	}
}

// shell runs a command on the machine in a directory, to its end or until what is asked
// for has happened, and returns what it prints.
func (m *machine) shell(dir, command string, until func() bool) string {
	t := m.lan.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := m.command(ctx, "", "sh", "-c", "exec "+command)
	if strings.Contains(command, "&&") {
		cmd = m.command(ctx, "", "sh", "-c", command)
	}
	cmd.Dir = dir
	cmd.Env = append(cmd.Env, "HOME="+dir)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			if err != nil && (until == nil || !errors.Is(ctx.Err(), context.Canceled)) {
				m.fatalf("%s: %v\n%s", command, err, out.String())
			}
			return out.String()
		case <-time.After(50 * time.Millisecond):
			if until != nil && until() {
				cancel()
			}
		}
	}
}
