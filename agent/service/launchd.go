package service

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"shoal/agent/internal/command"
)

// label is the name of a launchd job, as it stands in its property list.
var label = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

type launchd struct{ target string }

// Launchd returns the service that is the system-wide launchd job with that label,
// controlled by launchctl.
func Launchd(job string) (Service, error) {
	if len(job) > maxName || !label.MatchString(job) {
		return nil, fmt.Errorf("%q is not the label of a launchd job", job)
	}
	return &launchd{"system/" + job}, nil
}

func (l *launchd) ctl(ctx context.Context, args ...string) (command.Outcome, error) {
	return command.Run(ctx, command.Command{Argv: append([]string{"launchctl"}, args...), Timeout: defaultTimeout})
}

// State asks launchd. A job that is not loaded is an error.
func (l *launchd) State(ctx context.Context) (State, error) {
	o, err := l.ctl(ctx, "print", l.target)
	if err != nil {
		return State{}, fmt.Errorf("asking for the state of %q: %w", l.target, err)
	}
	return parseJob(l.target, o.Output)
}

// parseJob reads the output of "launchctl print", which is made for people: what is
// indented once is about the job itself.
func parseJob(target, output string) (State, error) {
	p := map[string]string{}
	for line := range strings.Lines(output) {
		if line, ours := strings.CutPrefix(line, "\t"); ours && !strings.HasPrefix(line, "\t") {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), " = "); ok {
				p[name] = value
			}
		}
	}
	state := p["state"]
	if state == "" {
		return State{}, fmt.Errorf("asking for the state of %q: launchctl did not tell", target)
	}
	st := State{Running: state == "running", Enabled: true, Detail: state}
	st.PID, _ = strconv.Atoi(p["pid"])
	st.Restarts, _ = strconv.Atoi(p["runs"])
	exit, _, _ := strings.Cut(p["last exit code"], ":") // "78: EX_CONFIG"
	if code, err := strconv.Atoi(exit); err == nil && code != 0 && !st.Running {
		st.Failed = true
		st.Detail += fmt.Sprintf(", exit status %d", code)
	}
	return st, nil
}

func (l *launchd) Restart(ctx context.Context) error {
	_, err := l.ctl(ctx, "kickstart", "-k", l.target)
	return err
}

func (l *launchd) Start(ctx context.Context) error {
	_, err := l.ctl(ctx, "kickstart", l.target)
	return err
}

// Stop ends the job's process. One that launchd keeps alive is started again by it.
func (l *launchd) Stop(ctx context.Context) error {
	_, err := l.ctl(ctx, "kill", "SIGTERM", l.target)
	return err
}
