package service

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"shoal/agent/internal/command"
)

// unitName is what systemd allows in the name of a unit; a name never starts with a
// dash, which systemctl would read as an option.
var unitName = regexp.MustCompile(`^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*$`)

// unitProperties are what State asks for.
const unitProperties = "LoadState,ActiveState,SubState,UnitFileState,Result,NRestarts,MainPID,ExecMainStatus"

type systemd struct{ unit string }

// Systemd returns the service that is the systemd unit of that name, controlled by
// systemctl.
func Systemd(unit string) (Service, error) {
	if len(unit) > maxName || !unitName.MatchString(unit) {
		return nil, fmt.Errorf("%q is not the name of a systemd unit", unit)
	}
	return &systemd{unit}, nil
}

func (s *systemd) ctl(ctx context.Context, args ...string) (command.Outcome, error) {
	return command.Run(ctx, command.Command{Argv: append([]string{"systemctl"}, args...), Timeout: defaultTimeout})
}

// State asks systemd. A unit it does not know is an error.
func (s *systemd) State(ctx context.Context) (State, error) {
	o, err := s.ctl(ctx, "show", "-p", unitProperties, s.unit)
	if err != nil {
		return State{}, fmt.Errorf("asking for the state of %q: %w", s.unit, err)
	}
	return parseUnit(s.unit, o.Output)
}

// parseUnit reads the output of "systemctl show".
func parseUnit(unit, output string) (State, error) {
	p := map[string]string{}
	for line := range strings.Lines(output) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok {
			p[name] = value
		}
	}
	if p["ActiveState"] == "" {
		return State{}, fmt.Errorf("asking for the state of %q: systemctl did not tell", unit)
	}
	if l := p["LoadState"]; l != "loaded" {
		return State{}, fmt.Errorf("systemd cannot load %q (%s)", unit, l)
	}
	st := State{Detail: fmt.Sprintf("%s (%s)", p["ActiveState"], p["SubState"])}
	st.PID, _ = strconv.Atoi(p["MainPID"]) // absent for units without processes
	st.Restarts, _ = strconv.Atoi(p["NRestarts"])
	switch p["ActiveState"] {
	case "active", "reloading", "refreshing":
		st.Running = true
	case "activating":
		st.Running = true
		// Between two runs of a program that keeps crashing.
		st.Failed = strings.HasPrefix(p["SubState"], "auto-restart")
	case "failed":
		st.Failed = true
	}
	switch p["UnitFileState"] {
	case "disabled", "masked", "masked-runtime":
	default: // "static", "generated" and the like are started by something else
		st.Enabled = true
	}
	if r := p["Result"]; r != "" && r != "success" {
		st.Detail += fmt.Sprintf(", %s, exit status %s", r, p["ExecMainStatus"])
	}
	return st, nil
}

// Restart restarts the unit and waits for it. A unit that crashed too often is
// blocked by its start limit, which would hit the good version that is being put
// back as well, so the count is cleared first.
func (s *systemd) Restart(ctx context.Context) error { return s.start(ctx, "restart") }

func (s *systemd) Start(ctx context.Context) error { return s.start(ctx, "start") }

func (s *systemd) start(ctx context.Context, verb string) error {
	// Fails for a unit that is not loaded, where there is nothing to clear.
	_, _ = s.ctl(ctx, "reset-failed", s.unit)
	if _, err := s.ctl(ctx, verb, s.unit); err != nil {
		if st, serr := s.State(ctx); serr == nil {
			return fmt.Errorf("%w; it is %s", err, st.Detail)
		}
		return err
	}
	return nil
}

func (s *systemd) Stop(ctx context.Context) error {
	_, err := s.ctl(ctx, "stop", s.unit)
	return err
}
