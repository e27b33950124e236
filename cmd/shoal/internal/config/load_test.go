package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"shoal/cmd/shoal/internal/units"
	"shoal/internal/fault"
)

// newTestFile writes content to a file of its own and returns its path.
func newTestFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEachSourceBeatsTheOneBelow(t *testing.T) {
	low := newTestFile(t, "listen: \":1\"\ncheck: {every: 1m}\nlimits: {up: 1MB}\ntime: floor\n")
	high := newTestFile(t, "listen: \":2\"\nlimits: {up: 2MB, down: 10kB}\n")
	env := map[string]string{"SHOAL_LISTEN": ":3", "SHOAL_LIMITS_UP": "3MB", "SHOAL_PEERS": "a:1, b:2"}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.String("listen", "", "")
	flags.String("time", "", "")
	if err := flags.Parse([]string{"--listen", ":4"}); err != nil {
		t.Fatal(err)
	}
	cfg := DefaultAgent()
	loaded, err := Load(&cfg, Options{
		Files:  []string{low, filepath.Join(t.TempDir(), "absent.yaml"), high},
		Getenv: func(k string) string { return env[k] },
		Flags:  []Bound{{"listen", flags.Lookup("listen")}, {"time", flags.Lookup("time")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultAgent()
	want.Listen = ":4"                             // flag over env over both files
	want.Limits.Up = 3e6                           // env over both files
	want.Limits.Down = 10e3                        // the later file alone
	want.Check.Every = units.Duration(time.Minute) // the earlier file alone
	want.Time = "floor"                            // a flag that was not given sets nothing
	want.Peers = []string{"a:1", "b:2"}            // a list from a variable
	want.Apps, want.Labels = []App{}, []Label{}    // lists nobody set are empty
	want.Trackers = []string{}
	want.Reports.To = []string{}
	want.Sources.Mirrors, want.Sources.LAN.Interfaces = []string{}, []string{}
	if d := cmp.Diff(want, cfg); d != "" {
		t.Errorf("configuration (-want +got):\n%s", d)
	}
	for key, origin := range map[string]string{
		"listen": "flag --listen", "limits.up": "env SHOAL_LIMITS_UP", "limits.down": "file " + high + ":2",
		"check.every": "file " + low + ":2", "disk.cache": "default", "time": "file " + low + ":4",
	} {
		if got := loaded.Origins[key].String(); got != origin {
			t.Errorf("origin of %s is %q, want %q", key, got, origin)
		}
	}
	if d := cmp.Diff([]string{low, high}, loaded.Files); d != "" {
		t.Errorf("files read (-want +got):\n%s", d)
	}
}

// viper silently leaves an environment variable alone when its key has no default.
func TestEveryKeyCanComeFromTheEnvironment(t *testing.T) {
	for _, k := range Keys(Agent{}) {
		cfg := DefaultAgent()
		name := EnvName(k)
		seen := false
		_, err := Load(&cfg, Options{Getenv: func(n string) string {
			if n == name {
				seen = true
				return "\x00 no value" // no type but text takes it
			}
			return ""
		}})
		if !seen {
			t.Errorf("%s is never asked for", name)
		}
		if err != nil && !strings.HasPrefix(err.Error(), name+": ") {
			t.Errorf("%s: error %q does not name the variable", name, err)
		}
	}
	cfg := DefaultAgent()
	env := map[string]string{
		"SHOAL_APPS":         `[{name: acme, channel: stable, target: /opt/acme, health: {type: http, timeout: 3s}}]`,
		"SHOAL_CHECK_JITTER": "5%", "SHOAL_SEED_AFTER_UPDATE": "2d", "SHOAL_LIMITS_PEERS": "7",
	}
	if _, err := Load(&cfg, Options{Getenv: func(n string) string { return env[n] }}); err != nil {
		t.Fatal(err)
	}
	if len(cfg.Apps) != 1 || cfg.Apps[0].Target != "/opt/acme" || cfg.Apps[0].Health.Timeout.Duration() != 3*time.Second {
		t.Errorf("apps from the environment: %+v", cfg.Apps)
	}
	if cfg.Check.Jitter != 0.05 || cfg.SeedAfterUpdate.Duration() != 48*time.Hour || cfg.Limits.Peers != 7 {
		t.Errorf("scalars from the environment: %+v", cfg)
	}
}

func TestWhatIsWrongIsNamedWithItsLine(t *testing.T) {
	rows := []struct{ name, file, want string }{
		{"typo", "time: system\nlisten: \":1\"\napps:\n- name: acme\n  chanel: stable\n", `:5: unknown key "chanel": did you mean "channel"?`},
		{"key-of-another-group", "up: 5MB\n", `:1: unknown key "up": did you mean "limits.up"?`},
		{"unknown-and-unlike-anything", "\nfrobnicate: 1\n", `:2: unknown key "frobnicate"`},
		{"case-is-not-folded", "Listen: \":1\"\n", `:1: unknown key "Listen": did you mean "listen"?`},
		{"twice", "time: system\ntime: floor\n", `:2: key "time" is there twice`},
		{"bad-size", "limits:\n  up: 5 potatoes\n", `:2: limits.up: "5 potatoes" is not a size`},
		{"bad-duration", "check: {every: soon}\n", `:1: check.every: "soon" is not a duration`},
		{"bad-number", "limits: {peers: many}\n", `:1: limits.peers: "many" is not a whole number`},
		{"bad-bool", "apps: [{require: 1}, {allow_install: perhaps}]\n", `:1: unknown key "require"`},
		{"bad-window", "apps:\n- windows:\n  - Sat-Sun any\n  - Mon-Fry 22:00-05:00\n", `:4: apps[0].windows[1]: "Fry" is not one of Mon`},
		{"unknown-zone", "apps:\n- windows: [ 'Mon any Europe/Atlantis' ]\n", `:2: apps[0].windows[0]: there is no time zone "Europe/Atlantis"`},
		{"scalar-for-list", "peers: a:1\n", `:1: "peers" must be a list`},
		{"list-for-scalar", "listen: [a]\n", `:1: "listen" must be one value`},
		{"scalar-for-group", "check: 5m\n", `:1: "check" must have keys of its own: every, jitter`},
		{"list-at-the-top", "- a\n", `:1: the file must be a list of keys and values`},
		{"anchor", "peers: &p [a:1]\n", `:1: anchors and aliases are not understood`},
		{"two-documents", "time: floor\n---\ntime: system\n", `more than one YAML document`},
		{"not-yaml", "time: [\n", `: line 1: did not find`},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			cfg := DefaultAgent()
			path := newTestFile(t, r.file)
			_, err := Load(&cfg, Options{Files: []string{path}})
			if fault.CodeOf(err) != fault.Config {
				t.Fatalf("Load = %v, want code config", err)
			}
			if !strings.HasPrefix(err.Error(), path+":") || !strings.Contains(err.Error(), r.want) {
				t.Errorf("error %q\nwant %q", err, path+r.want)
			}
		})
	}
}

// What an entry of a list says nothing of has a default too.
func TestDefaultsOfAnApp(t *testing.T) {
	for _, r := range []struct {
		file, env string
		allow     []bool
		windows   string
	}{
		{file: "apps:\n- name: acme\n- allow_install: false\n- allow_install: true\n", allow: []bool{true, false, true}},
		{file: "apps: [{allow_install: }]", allow: []bool{true}},
		{env: "[{name: acme}, {allow_install: false}]", allow: []bool{true, false}},
		{file: "apps: [{windows: [ 'Mon-Fri 22:00-05:00 Europe/Berlin', Sat any ]}]", allow: []bool{true},
			windows: "[Mon-Fri 22:00-05:00 Europe/Berlin Sat any]"},
	} {
		cfg := DefaultAgent()
		_, err := Load(&cfg, Options{Files: []string{newTestFile(t, r.file)}, Getenv: func(n string) string {
			if n == "SHOAL_APPS" {
				return r.env
			}
			return ""
		}})
		var allow []bool
		windows := ""
		for _, a := range cfg.Apps {
			allow = append(allow, a.AllowInstall)
			if len(a.Windows) > 0 {
				windows = fmt.Sprint(a.Windows)
			}
		}
		if err != nil || !slices.Equal(allow, r.allow) || windows != r.windows {
			t.Errorf("%q %q: %v, %q, %v; want %v, %q", r.file, r.env, allow, windows, err, r.allow, r.windows)
		}
	}
}

func TestMoreThanOneProblemIsToldAtOnce(t *testing.T) {
	cfg := DefaultAgent()
	_, err := Load(&cfg, Options{Files: []string{newTestFile(t, "lisen: a\ntime: floor\ncheck: {evry: 1m}\n")}})
	var e *fault.Error
	if !errors.As(err, &e) || len(e.Detail) != 1 || !strings.Contains(e.Detail[0], `:3: unknown key "evry"`) {
		t.Errorf("Load = %#v, want the second problem in the detail", err)
	}
}

func TestEmptyValuesMeanTheDefault(t *testing.T) {
	for _, content := range []string{"", "# nothing\n", "listen:\npeers:\ncheck:\n", "{}"} {
		cfg := DefaultAgent()
		if _, err := Load(&cfg, Options{Files: []string{newTestFile(t, content)}}); err != nil {
			t.Errorf("%q: %v", content, err)
		} else if cfg.Listen != ":7801" || cfg.Check.Every.Duration() != 15*time.Minute {
			t.Errorf("%q: listen %q, check every %s; want the defaults", content, cfg.Listen, cfg.Check.Every)
		}
	}
}

func TestAHugeFileIsRefused(t *testing.T) {
	cfg := DefaultAgent()
	_, err := Load(&cfg, Options{Files: []string{newTestFile(t, strings.Repeat("#", maxFile+1))}})
	if fault.CodeOf(err) != fault.Config {
		t.Errorf("Load = %v, want code config", err)
	}
}

func TestAMissingFileCountsOnlyWhenAskedFor(t *testing.T) {
	absent := []string{filepath.Join(t.TempDir(), "agent.yaml")}
	cfg := DefaultAgent()
	if _, err := Load(&cfg, Options{Files: absent}); err != nil {
		t.Errorf("Load = %v, want the defaults", err)
	}
	if _, err := Load(&cfg, Options{Files: absent, Require: true}); fault.CodeOf(err) != fault.Config {
		t.Errorf("Load = %v, want code config", err)
	}
}

func TestPathsPutTheUserAfterTheSystemAndConfDSorted(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "shoal", "conf.d")
	if err := os.MkdirAll(conf, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"20-b.yaml", "10-a.yaml", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(conf, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, p := range Paths("agent", "linux", func(k string) string { return map[string]string{"XDG_CONFIG_HOME": dir}[k] }) {
		if !p.System {
			got = append(got, p.File)
		} else if p.File != "/etc/shoal/agent.yaml" && !strings.HasPrefix(p.File, "/etc/shoal/conf.d/") {
			t.Errorf("system path %q", p.File)
		}
	}
	want := []string{filepath.Join(dir, "shoal", "agent.yaml"), filepath.Join(conf, "10-a.yaml"), filepath.Join(conf, "20-b.yaml")}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("user paths (-want +got):\n%s", d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("listen: \":1\"\napps: [{name: acme}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("check: {every: 1m, jitter: 10%}\n---\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		cfg := DefaultAgent()
		path := newTestFile(t, string(b))
		_, err := Load(&cfg, Options{Files: []string{path}})
		if err != nil && fault.CodeOf(err) != fault.Config {
			t.Errorf("Load(%q) = %v, want code config", b, err)
		}
	})
}

func TestInstallersAreRead(t *testing.T) {
	path := newTestFile(t, `apps:
- name: acme
  kind: installer
  installer: {command: [msiexec, /i, "{file}"], success: [1641, 3010], retry_later: [1618], idempotent: true, timeout: 5m}
`)
	cfg := DefaultAgent()
	if _, err := Load(&cfg, Options{Files: []string{path}, Getenv: func(string) string { return "" }}); err != nil {
		t.Fatal(err)
	}
	want := Installer{
		Command: []string{"msiexec", "/i", "{file}"}, Success: []int{1641, 3010}, RetryLater: []int{1618},
		Idempotent: true, Timeout: units.Duration(5 * time.Minute),
	}
	if len(cfg.Apps) != 1 {
		t.Fatalf("%+v", cfg.Apps)
	}
	if d := cmp.Diff(want, cfg.Apps[0].Installer); d != "" {
		t.Errorf("installer (-want +got):\n%s", d)
	}
	bad := newTestFile(t, "apps:\n- installer: {success: [done]}\n")
	_, err := Load(&cfg, Options{Files: []string{bad}, Getenv: func(string) string { return "" }})
	if fault.CodeOf(err) != fault.Config {
		t.Errorf("a word as an exit status: %v", err)
	}
}
