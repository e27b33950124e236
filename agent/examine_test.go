package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"shoal/agent/agenttest"
	"shoal/internal/fault"
	"shoal/manifest"
)

func TestExamine(t *testing.T) {
	rows := []struct {
		name  string
		spoil func(b *bench)
		check string
		want  fault.Code
	}{
		{"well", func(*bench) {}, "", fault.OK},
		{"not-joined", func(b *bench) { os.Remove(b.cfg.JoinFile) }, "membership", fault.Config},
		{"another-fleet", func(b *bench) { b.cfg.FleetID = manifest.Sum([]byte("another fleet")).Prefixed() }, "membership", fault.PinMismatch},
		{"clock-before-the-build", func(b *bench) { b.cfg.Build = b.Now.Add(time.Hour) }, "clock", fault.ClockBehind},
		{"state-below-a-file", func(b *bench) {
			b.cfg.StateDir = filepath.Join(b.target, "state")
			b.cfg.AnchorFile, b.cfg.CacheDir = filepath.Join(b.t.TempDir(), "anchor"), b.t.TempDir()
		}, "state", fault.Permission},
		{"disk-full", func(b *bench) { b.cfg.Disk.Reserve = 1 << 60 }, "disk", fault.NoSpace},
		{"others-can-write", func(b *bench) { b.chmod(0o777) }, "target", fault.UnsafePath},
		{"target-in-no-directory", func(b *bench) { b.cfg.Apps[0].Target = "/nowhere/acme" }, "target", fault.Config},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := newBench(t)
			r.spoil(b)
			x, err := Examine(t.Context(), b.cfg)
			if err != nil || x.Inside || len(x.Findings) < 6 {
				t.Fatalf("%+v, %v", x, err)
			}
			for _, f := range x.Findings {
				if r.check != "" && f.Check != r.check {
					continue
				}
				if f.Code != r.want || f.Text == "" || r.want != fault.OK && len(f.Fix) == 0 {
					t.Errorf("%+v, want %s", f, r.want)
				}
			}
		})
	}
}

// What counts is what the agent may do, so it is the agent that looks.
func TestExamineFromInside(t *testing.T) {
	b := newBench(t)
	b.Release(stable, 2, agenttest.Program("2", 0))
	defer b.run()()
	b.serving()
	cfg := b.cfg
	cfg.Apps = nil // what the asker's configuration says does not count
	x, err := Examine(t.Context(), cfg)
	if err != nil || !x.Inside || x.Findings[len(x.Findings)-1].App != "acme" {
		t.Errorf("%+v, %v", x, err)
	}
}
