package apply

import (
	"context"
	"fmt"
	"time"

	"shoal/agent/internal/command"
)

const defaultHookTimeout = time.Minute

// Hooks are commands run around a swap. Each is an argv list, which no shell reads,
// and runs with a clean environment and these variables:
//
//	SHOAL_HOOK          pre, post or on_revert; install or revert for an Installer's
//	SHOAL_APP           the app
//	SHOAL_TARGET        the file that is replaced
//	SHOAL_STAGED        the new file, ready to run; only for pre
//	SHOAL_TX            the transaction's name
//	SHOAL_ATTEMPT       1, or more when a crash or a failure came before the end
//	SHOAL_FROM_VERSION  SHOAL_FROM_SHA256  SHOAL_TO_VERSION  SHOAL_TO_SHA256
//
// After a crash a hook can run again for the same update: it must be idempotent.
type Hooks struct {
	Pre      []string      // before the swap; failing it aborts
	Post     []string      // after the new version is confirmed; failing it is only recorded
	OnRevert []string      // after the old version is back; failing it is only recorded
	Timeout  time.Duration // for each; zero means 60 s. Then its whole process group is killed
}

// HookResult is what a hook did.
type HookResult struct {
	Hook   string `json:"hook"`            // "pre", "post" or "on_revert"; "install" or "revert" of an Installer
	Exit   int    `json:"exit"`            // exit status; -1 when it did not start, was killed or ran out of time
	Error  string `json:"error,omitempty"` // empty when it exited 0
	Output string `json:"output,omitempty"`
}

// The names of the hooks.
const (
	hookPre      = "pre"
	hookPost     = "post"
	hookOnRevert = "on_revert"
)

func (h Hooks) argv(hook string) []string {
	switch hook {
	case hookPre:
		return h.Pre
	case hookPost:
		return h.Post
	}
	return h.OnRevert
}

// runHook runs a hook, if there is one, and adds what it did to the journal.
func (s *session) runHook(ctx context.Context, hook string, attempt int) error {
	j := s.j
	argv := s.p.Hooks.argv(hook)
	if len(argv) == 0 {
		return nil
	}
	env := append(environment(j, hook), fmt.Sprintf("SHOAL_ATTEMPT=%d", attempt))
	if hook == hookPre {
		env = append(env, "SHOAL_STAGED="+j.Staged)
	}
	timeout := s.p.Hooks.Timeout
	if timeout == 0 {
		timeout = defaultHookTimeout
	}
	o, err := command.Run(ctx, command.Command{Argv: argv, Env: env, Timeout: timeout})
	r := HookResult{Hook: hook, Exit: o.Exit, Output: o.Output}
	if err != nil {
		err = fmt.Errorf("running the %s hook: %w", hook, err)
		r.Error = err.Error()
		s.log.Warn("hook failed", "hook", hook, "error", err)
	}
	j.ran(r)
	return err
}

// environment is what a command of a transaction is told, besides the clean environment.
func environment(j *journal, name string) []string {
	env := []string{
		"SHOAL_HOOK=" + name,
		"SHOAL_APP=" + j.App,
		"SHOAL_TARGET=" + j.Target,
		"SHOAL_TX=" + j.Tx,
		"SHOAL_FROM_VERSION=" + j.FromRelease.Version,
		"SHOAL_TO_VERSION=" + j.ToRelease.Version,
		"SHOAL_TO_SHA256=" + j.To.String(),
	}
	if !j.From.absent() {
		env = append(env, "SHOAL_FROM_SHA256="+j.From.String())
	}
	return env
}

// ran adds what a command did to the journal.
func (j *journal) ran(r HookResult) {
	j.Hooks = append(j.Hooks, r)
	if n := len(j.Hooks); n > maxHookResults { // repeated after crashes
		j.Hooks = j.Hooks[n-maxHookResults:]
	}
}

// maxHookResults bounds the journal: one of each kind, and one that was repeated.
const maxHookResults = 4
