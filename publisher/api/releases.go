package api

import (
	"net/http"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/view"
)

const maxReleases = 50 // on a page

// ReleasePage is some of the releases.
type ReleasePage struct {
	Schema   string         `json:"schema"`
	Releases []view.Release `json:"releases"`
	Next     string         `json:"next,omitempty"` // for after; empty when these were the last
}

// Releases returns the releases after the one that a cursor names.
func Releases(all []view.Release, after string, most int) (*ReleasePage, error) {
	page := &ReleasePage{Schema: "shoal.releases/v1", Releases: []view.Release{}}
	for i := range all {
		if after == "" {
			end := min(len(all), i+most)
			page.Releases = all[i:end]
			if end < len(all) {
				page.Next = cursor(&all[end-1])
			}
			return page, nil
		}
		if cursor(&all[i]) == after {
			after = ""
		}
	}
	if after != "" {
		return nil, fault.New(fault.Usage, "%q is no place among the releases", after)
	}
	return page, nil
}

func cursor(r *view.Release) string {
	return r.Channel.String() + "@" + (manifest.Order{Epoch: r.Epoch, Sequence: r.Sequence}).String()
}

func (a *API) releases(r *http.Request, _ params) (any, error) {
	q := r.URL.Query()
	most, err := limit(q, maxReleases)
	if err != nil {
		return nil, err
	}
	all, err := a.view.AllReleases(r.Context())
	if err != nil {
		return nil, err
	}
	return Releases(all, q.Get("after"), most)
}
