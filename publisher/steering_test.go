package publisher

import (
	"context"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/keys"
	"shoal/publisher/rollout"
)

// What one process at a time can have, the reports and the brake, a command has for a moment:
// neither a serve that begins meanwhile nor another command fails for that.
func TestACommandAtWorkIsWaitedFor(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	beacon := f.withBeacon()
	f.publish("1.0.0", "one")
	f.cfg.Clock, f.cfg.Serve.Beacon = time.Now, beacon
	// command has all of it for a moment, longer than the reports' own patience.
	command := func() *Publisher {
		t.Helper()
		p := f.open()
		reports, err := p.openReports()
		if err != nil {
			t.Fatal(err)
		}
		steering, err := p.openController(beacon, reports)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(500*time.Millisecond, func() {
			steering.Close()
			reports.Close()
		})
		return p
	}

	command()
	s := serve(t, f)
	if !s.Steers {
		t.Error("it does not steer")
	}
	// Beside a serve that runs there is no waiting for another.
	wantCode(t, f.open().Serve(t.Context(), nil), fault.Locked)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	if _, err := command().RolloutStatus(t.Context(), stable); err != nil {
		t.Errorf("the status while a command was at work: %v", err)
	}
	asked := 0
	done, err := command().Brake(t.Context(), rollout.Command{Channel: stable, Action: rollout.Pause}, func(context.Context) (keys.Signer, error) {
		asked++
		return beacon, nil
	})
	if err != nil || !done.Changed || asked != 1 {
		t.Errorf("the brake while a command was at work: %+v, %v; the key was asked for %d times", done, err, asked)
	}
}
