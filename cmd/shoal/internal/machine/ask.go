package machine

import (
	"context"
	"strings"

	"shoal/agent"
	"shoal/cmd/shoal/internal/cli"
	"shoal/internal/fault"
)

// With runs do on this machine's agent: the running one, or one that works for this
// command alone.
func With(ctx context.Context, c *cli.CLI, cfg agent.Config, do func(context.Context, agent.Handle) error) error {
	cfg.Logger = c.Log() // a person reads this, not a journal
	ctx, cancel := c.WithTimeout(ctx, 0)
	defer cancel()
	h, err := agent.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer h.Close()
	return do(ctx, h)
}

// Followed is the one app that follows the channel; either name may be empty.
func Followed(cfg agent.Config, app, channel string) (string, error) {
	var fit []string
	for _, a := range cfg.Apps {
		if (app == "" || a.Name == app) && (channel == "" || a.Channel == channel) {
			fit = append(fit, a.Name)
		}
	}
	wanted := strings.Trim(app+"/"+channel, "/")
	switch len(fit) {
	case 1:
		return fit[0], nil
	case 0:
		if len(cfg.Apps) == 0 {
			return "", fault.New(fault.Config, "no app is configured").Do("shoal agent join LINK --target PATH")
		}
		e := cli.Usagef("this machine follows no channel %q", wanted)
		for _, a := range cfg.Apps {
			e.Line("It follows %s/%s.", a.Name, a.Channel)
		}
		return "", e
	}
	if wanted == "" {
		return "", cli.Usagef("this machine follows %s", strings.Join(fit, " and ")).Do("say which: APP/CHANNEL")
	}
	return "", cli.Usagef("%q means %s", wanted, strings.Join(fit, " and ")).Do("say which: --app APP")
}

// Ask puts one question about this machine's agent, as the configuration has it, and
// waits for the answer no longer than --timeout says.
func Ask[T any](ctx context.Context, c *cli.CLI, question func(context.Context, agent.Config) (T, error)) (T, error) {
	cfg, err := Config(c)
	if err != nil {
		var none T
		return none, err
	}
	cfg.Logger = c.Log() // a person reads this, not a journal
	ctx, cancel := c.WithTimeout(ctx, 0)
	defer cancel()
	return question(ctx, cfg)
}
