package publisher

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	reports "shoal/publisher/fleet"
	"shoal/swarm/fleet"
)

// In a fleet with a key strangers cannot even try; a member's report is looked at.
func TestMembersAloneReport(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	keys := f.keyed()
	f.cfg.Serve.OpenData = true // of releases; who is there stays the fleet's affair
	f.publish("1.0.0", "secret business")
	s := serve(t, f)
	post := func(via http.RoundTripper) (int, string) {
		res, err := (&http.Client{Transport: via}).Post("https://"+s.HTTP.String()+reports.ReportsPath, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	nobody := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(nobody.CloseIdleConnections)
	if status, body := post(nobody); status != http.StatusForbidden || body != "" {
		t.Errorf("a stranger: %d %q", status, body)
	}
	member := fleet.Transport(joined(t, keys))
	t.Cleanup(member.CloseIdleConnections)
	if status, body := post(member); status != http.StatusBadRequest || !strings.Contains(body, `"malformed"`) {
		t.Errorf("a member: %d %q", status, body)
	}
	cfg, err := f.open().FleetConfig()
	if err != nil {
		t.Fatal(err)
	}
	beside, err := reports.Connect(t.Context(), cfg) // of the serve that runs
	if err != nil {
		t.Fatal(err)
	}
	defer beside.Close()
	sum, err := beside.Summary(t.Context())
	if err != nil || sum.Counters.Bad != 1 {
		t.Errorf("%+v, %v", sum, err)
	}
}
