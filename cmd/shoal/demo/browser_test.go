package demo

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestOpener(t *testing.T) {
	for _, row := range []struct {
		name, goos string
		env        map[string]string
		want       string
	}{
		{"no-desktop", "linux", nil, ""},
		{"x11", "linux", map[string]string{"DISPLAY": ":0"}, "xdg-open"},
		{"wayland", "linux", map[string]string{"WAYLAND_DISPLAY": "wayland-0"}, "xdg-open"},
		{"bsd", "freebsd", map[string]string{"DISPLAY": ":0"}, "xdg-open"},
		{"mac", "darwin", nil, "open"},
	} {
		if got := opener(row.goos, func(name string) string { return row.env[name] }); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

// A link that cannot be opened is told in one line, with the link, and is no failure.
func TestAPageThatDoesNotOpen(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		t.Skip("skipped: the program that opens links is another one here")
	}
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	t.Setenv("DISPLAY", ":99")
	show := func() string {
		var said strings.Builder
		f := &fleet{cfg: Config{Talk: &said, Open: true}, page: "http://127.0.0.1:1/login?once=x"}
		f.browser = openPage(f.page)
		<-f.browser.done
		if f.opened() {
			t.Error("it takes the page for opened")
		}
		f.showPage()
		if err := f.audience(t.Context()); err != nil {
			t.Error(err)
		}
		return said.String()
	}
	if got := show(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "?once=x   open it now") || !strings.Contains(got, "not found") {
		t.Errorf("without a program: %q", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte("#!/bin/sh\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := show(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "exit status 3") {
		t.Errorf("with one that fails: %q", got)
	}
}
