package setupcmd

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"shoal/agent/self"
	"shoal/cmd/shoal/internal/cli"
)

// What the configuration says is what the service may do.
func TestInstallDryRun(t *testing.T) {
	home := t.TempDir()
	config := filepath.Join(home, "shoal", "agent.yaml")
	sh, err := self.At("/bin/sh") // the agent, for once
	if err != nil {
		t.Skip("skipped: there is no /bin/sh")
	}
	rows := []struct {
		name, apps string
		has, hasNo []string
	}{
		{"other-programs", "- {name: acme, channel: stable, target: /opt/acme/acme}\n",
			[]string{"ReadWritePaths=-/opt/acme\n", "ExecStart=" + sh.Path() + " agent run\n", "StateDirectory=shoal shoal-anchor"},
			[]string{"guard", "OnFailure", "LoadCredential"}},
		{"own-state", "- {name: acme, channel: stable, target: /opt/acme/acme}\n",
			[]string{"ReadWritePaths=-/opt/acme -/srv/state\n", " --state /srv/state agent run\n"}, []string{"StateDirectory"}},
		{"itself-among-everybodys-programs", "- {name: shoal, channel: stable, target: /bin/sh}\n", []string{"needs a directory of its own"}, []string{"[Unit]"}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if err := os.MkdirAll(filepath.Dir(config), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(config, []byte("apps:\n"+r.apps), 0o644); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			c := cli.New(cli.Streams{In: strings.NewReader(""), Out: &out, Err: &out})
			c.Program = sh
			c.Getenv = func(name string) string {
				return map[string]string{"XDG_CONFIG_HOME": home, "HOME": home}[name]
			}
			args := []string{"install", "--dry-run"}
			if r.name == "own-state" {
				args = append(args, "--state", "/srv/state")
			}
			root := &cobra.Command{Use: "shoal"}
			root.AddCommand(newInstallCmd(c))
			c.Frame(root)
			c.Execute(t.Context(), root, args)
			for _, want := range r.has {
				if !strings.Contains(out.String(), want) {
					t.Errorf("without %q:\n%s", want, out.String())
				}
			}
			for _, not := range r.hasNo {
				if strings.Contains(out.String(), not) {
					t.Errorf("with %q:\n%s", not, out.String())
				}
			}
		})
	}
}
