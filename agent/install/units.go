package install

import (
	"bytes"
	"embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"shoal/agent/self"
	"shoal/internal/fault"
)

const (
	agentUnit = "shoal-agent.service"
	guardUnit = "shoal-guard.service"

	// A file that begins so is ours to replace and to remove.
	unitHead = "# Written by shoal agent install, and again the next time. Put changes of your own into a\n" +
		"# drop-in, which stays: systemctl edit "
)

//go:embed *.service
var unitText embed.FS

// Unit is one file for systemd.
type Unit struct{ Name, Text string }

// Units returns the text of the units: the agent's and, where the agent replaces itself,
// the guard's. The error says what about the paths cannot work under systemd.
func Units(o Options) ([]Unit, error) {
	v := struct {
		Options
		Guard, Writable, Key string
		Home, OwnState       bool
	}{Options: o, OwnState: o.State == ""}
	writable := []string{}
	if o.Self {
		v.Guard = self.Guard(o.Program)
		writable = append(writable, filepath.Dir(o.Program))
	}
	if !v.OwnState {
		writable = append(writable, o.State)
	}
	for _, target := range o.Targets {
		writable = append(writable, filepath.Dir(target))
		if real, err := filepath.EvalSymlinks(target); err == nil {
			writable = append(writable, filepath.Dir(real))
		}
	}
	if o.FleetKey != "" {
		v.Key = "fleet.key:" + o.FleetKey
	}
	for _, path := range append([]string{o.Program, o.Config, o.State, o.FleetKey}, writable...) {
		if path == "" {
			continue
		}
		if err := o.checkPath(path); err != nil {
			return nil, err
		}
		v.Home = v.Home || below(path, "/home", "/root", "/run/user")
	}
	slices.Sort(writable)
	for i, dir := range slices.Compact(writable) {
		if i > 0 {
			v.Writable += " "
		}
		// A directory that is gone must not keep the agent from running.
		v.Writable += quote("-"+dir, false)
	}
	t, err := template.New("").Funcs(template.FuncMap{
		"arg":  func(s string) string { return quote(s, true) },
		"path": func(s string) string { return quote(s, false) },
	}).ParseFS(unitText, "*.service")
	if err != nil {
		return nil, err
	}
	var units []Unit
	for _, name := range []string{agentUnit, guardUnit} {
		if name == guardUnit && !o.Self {
			continue
		}
		var b bytes.Buffer
		b.WriteString(unitHead + name + "\n")
		if err := t.ExecuteTemplate(&b, name, v); err != nil {
			return nil, err
		}
		units = append(units, Unit{name, b.String()})
	}
	return units, nil
}

// checkPath refuses what a unit cannot have: a service has a /tmp of its own.
func (o Options) checkPath(path string) error {
	temporary := o.temporary
	if temporary == nil {
		temporary = []string{"/tmp", "/var/tmp"}
	}
	if !filepath.IsAbs(path) || strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fault.New(fault.Config, "the path %q cannot stand in a unit", path)
	}
	if below(path, temporary...) {
		return fault.New(fault.Config, "%q is among the temporary files, of which a service has its own", path).
			Do("move it to a place that stays, such as /opt")
	}
	return nil
}

func below(path string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") })
}

// sharedDirs are those of everybody's programs.
var sharedDirs = []string{"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"}

// checkSelf refuses an agent that is to replace itself among everybody's programs: the
// service would need to write there.
func checkSelf(o Options) error {
	dir := filepath.Dir(o.Program)
	if !o.Self || !slices.Contains(sharedDirs, dir) {
		return nil
	}
	return fault.New(fault.UnsafePath, "an agent that replaces itself needs a directory of its own, not %s", dir).
		Line("The service may write there, and keeps the guard beside the agent.").
		Do("install -D %s /opt/shoal/shoal", o.Program).
		Do("set the app's target to /opt/shoal/shoal, and: /opt/shoal/shoal agent install")
}

// quote writes s as one word of a unit's setting; in a command line dollars mean
// variables, too.
func quote(s string, command bool) string {
	s = strings.ReplaceAll(s, "%", "%%")
	if command {
		s = strings.ReplaceAll(s, "$", "$$")
	}
	if !strings.ContainsAny(s, " \"'\\;") {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// ours reads the unit at path, and refuses one that somebody else wrote.
func ours(path string) (there bool, text string, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, "", nil
	}
	if err != nil {
		return false, "", fault.New(fault.IO, "reading the unit: %w", err)
	}
	if !strings.HasPrefix(string(b), unitHead) {
		return true, "", fault.New(fault.Config, "there is a unit %q that shoal did not write", path).
			Line("Nothing was changed.").Do("remove it, or keep managing the service by it")
	}
	return true, string(b), nil
}
