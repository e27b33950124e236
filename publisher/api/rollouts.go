package api

import (
	"context"
	"net/http"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/rollout"
)

func (a *API) rollouts(r *http.Request, _ params) (any, error) {
	o, err := a.view.Overview(r.Context())
	if err != nil {
		return nil, err
	}
	all := struct {
		Schema   string            `json:"schema"`
		Rollouts []*rollout.Status `json:"rollouts"`
	}{"shoal.rollouts/v1", []*rollout.Status{}}
	for i := range o.Channels {
		if st := o.Channels[i].Rollout; st != nil {
			all.Rollouts = append(all.Rollouts, st)
		}
	}
	return all, nil
}

func channel(p params) (manifest.Channel, error) {
	ch, err := manifest.ParseChannel(p["app"] + "/" + p["channel"])
	if err != nil {
		return ch, fault.New(fault.NotFound, "there is no channel %q", p["app"]+"/"+p["channel"])
	}
	return ch, nil
}

func (a *API) rollout(_ *http.Request, p params) (any, error) {
	ch, err := channel(p)
	if err != nil {
		return nil, err
	}
	st, err := a.view.Rollout(ch)
	return struct {
		Schema string `json:"schema"`
		*rollout.Status
	}{"shoal.rollout/v1", st}, err
}

// brake has the brake of a rollout do something.
func (a *API) brake(action rollout.Action) func(*http.Request, params) (any, error) {
	return func(r *http.Request, p params) (any, error) {
		ch, err := channel(p)
		if err != nil {
			return nil, err
		}
		var why struct {
			Reason string `json:"reason"`
			Wave   int    `json:"wave"` // of a promotion
		}
		if err := body(r, &why); err != nil {
			return nil, err
		}
		// What was begun is not left half done because somebody hung up.
		done, err := a.view.Do(context.WithoutCancel(r.Context()), rollout.Command{Channel: ch, Action: action, Reason: why.Reason, Wave: why.Wave})
		return struct {
			Schema string `json:"schema"`
			*rollout.Done
		}{"shoal.rollout-done/v1", done}, err
	}
}
