package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// installed are the files of a package.
var installed = []string{
	"etc/shoal/agent.yaml.example",
	"etc/shoal/publisher.yaml.example",
	"usr/bin/shoal",
	"usr/lib/systemd/system/shoal-agent.service",
	"usr/lib/systemd/system/shoal-publisher.service",
	"usr/lib/sysusers.d/shoal.conf",
	"usr/share/doc/shoal/copyright",
}

// needs skips where a package cannot be installed.
func needs(t *testing.T, manager string) {
	t.Helper()
	if _, err := exec.LookPath(manager); err != nil {
		t.Skipf("skipped: there is no %s here", manager)
	}
	if os.Geteuid() != 0 {
		t.Skip("skipped: the files of a package belong to root, and so must who installs it")
	}
}

// checkDeb installs the package under a root of its own, runs what it put there, and removes
// and purges it as on a machine that has joined.
func checkDeb(t *testing.T, deb string) {
	needs(t, "dpkg")
	root := t.TempDir()
	write := func(content string, names ...string) {
		t.Helper()
		for _, name := range names {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("", "var/lib/dpkg/status", "var/lib/dpkg/info/none", "var/lib/dpkg/updates/0000", "etc/none")
	os.Remove(filepath.Join(root, "var/lib/dpkg/updates/0000"))
	dpkg := func(args ...string) string {
		t.Helper()
		base := []string{"dpkg", "--root=" + root, "--force-not-root", "--force-script-chrootless", "--log=/dev/null"}
		return command(t, ".", []string{"LC_ALL=C"}, append(base, args...)...)
	}
	there := func(want bool, names ...string) {
		t.Helper()
		for _, name := range names {
			if _, err := os.Lstat(filepath.Join(root, name)); (err == nil) != want {
				t.Errorf("%s is there: %v, want %v", name, err == nil, want)
			}
		}
	}

	dpkg("--install", deb)
	there(true, installed...)
	// Nothing is enabled, and nothing configured.
	there(false, "etc/systemd/system", "etc/shoal/agent.yaml", "etc/shoal/publisher.yaml", "var/lib/shoal", "var/lib/shoal-publisher")
	program := filepath.Join(root, "usr/bin/shoal")
	command(t, ".", nil, program, "version")
	for _, name := range []string{"agent", "publisher"} {
		command(t, ".", nil, program, "config", "validate", filepath.Join(root, "etc/shoal", name+".yaml.example"))
	}
	if _, err := exec.LookPath("systemd-sysusers"); err == nil {
		if b, err := os.ReadFile(filepath.Join(root, "etc/passwd")); !strings.Contains(string(b), "shoal-publisher:") {
			t.Errorf("the publisher's user was not made: %q, %v", b, err)
		}
	}

	// What a machine's own life leaves.
	unit := "etc/systemd/system/shoal-agent.service"
	state := []string{"etc/shoal/agent.yaml", "etc/shoal/join.json", "etc/shoal/fleet.key", "var/lib/shoal/state.json", "var/lib/shoal-anchor/a.json", "var/cache/shoal/c"}
	publisher := []string{"etc/shoal/publisher.yaml", "etc/shoal/keys/root-1", "var/lib/shoal-publisher/m/x"}
	write("x", append(state, publisher...)...)
	write("[Service]\nExecStart=/usr/bin/shoal agent run\n", unit)

	dpkg("--install", deb) // as in an upgrade
	there(true, append(installed, state...)...)
	dpkg("--remove", "shoal")
	there(false, "usr/bin/shoal", "usr/lib/systemd/system/shoal-agent.service")
	there(true, append(append(state, publisher...), unit)...)
	dpkg("--purge", "shoal")
	there(false, append(state, unit, "var/lib/shoal", "var/lib/shoal-anchor", "var/cache/shoal")...)
	there(true, publisher...)
}

// checkRPM installs the package under a root of its own, where rpm is.
func checkRPM(t *testing.T, rpm string) {
	needs(t, "rpm")
	if host := command(t, ".", nil, "rpm", "--query", "--package", "--queryformat", "%{BUILDHOST}", "--nosignature", rpm); host != "reproducible" {
		t.Errorf("it says that it was made on %q", host)
	}
	root := t.TempDir()
	// Its scripts want a shell, which is not in that root.
	command(t, ".", nil, "rpm", "--root", root, "--install", "--nodeps", "--noscripts", "--nosignature", rpm)
	var files []string
	for _, name := range installed {
		if info, err := os.Stat(filepath.Join(root, name)); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: %v", name, err)
		}
		files = append(files, "/"+name)
	}
	listed := strings.Fields(command(t, ".", nil, "rpm", "--query", "--package", "--list", rpm))
	for _, name := range files {
		if !strings.Contains(" "+strings.Join(listed, " ")+" ", " "+name+" ") {
			t.Errorf("rpm does not list %s: %q", name, listed)
		}
	}
	command(t, ".", nil, filepath.Join(root, "usr/bin/shoal"), "version")
	command(t, ".", nil, "rpm", "--root", root, "--erase", "--noscripts", "shoal")
	if _, err := os.Stat(filepath.Join(root, "usr/bin/shoal")); !os.IsNotExist(err) {
		t.Errorf("the program stays: %v", err)
	}
}

// The scripts of the packages are fit for any shell, the playbook for Ansible where it is
// here, and systemd has nothing to say against the units.
func TestDeploy(t *testing.T) {
	deploy := filepath.Join("..", "..", "..", "deploy")
	scripts, err := fs.Glob(os.DirFS(deploy), "scripts/*.sh")
	if err != nil || len(scripts) != 3 {
		t.Fatalf("scripts: %q, %v", scripts, err)
	}
	for _, name := range scripts {
		command(t, deploy, nil, "sh", "-n", name)
	}
	playbook, err := os.ReadFile(filepath.Join(deploy, "ansible", "shoal.yml"))
	var plays []struct{ Tasks []map[string]any }
	if err := errors.Join(err, yaml.Unmarshal(playbook, &plays)); err != nil || len(plays) != 1 || len(plays[0].Tasks) < 5 {
		t.Errorf("the playbook: %v, %v", plays, err)
	}
	if ansible, err := exec.LookPath("ansible-playbook"); err == nil {
		command(t, deploy, []string{"HOME=" + t.TempDir()}, ansible, "--syntax-check", "--inventory", "localhost,", "ansible/shoal.yml")
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("skipped: there is no systemd-analyze here")
	}
	units, err := fs.Glob(os.DirFS(deploy), "systemd/*.service")
	if err != nil || len(units) != 2 {
		t.Fatalf("units: %q, %v", units, err)
	}
	dir, args := t.TempDir(), []string{analyze, "verify", "--man=no"}
	for _, name := range units {
		b, err := os.ReadFile(filepath.Join(deploy, name))
		if err != nil {
			t.Fatal(err)
		}
		// It wants to see the program.
		path := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(b), "/usr/bin/shoal ", "/bin/true ")), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	if out := command(t, dir, nil, args...); out != "" {
		t.Errorf("systemd-analyze: %s", out)
	}
}
