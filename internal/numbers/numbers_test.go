package numbers

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

type two struct{}

func (two) Describe(ch chan<- *prometheus.Desc) {
	ch <- Desc("update_blocked", `why "held"`, "channel", "code")
	ch <- Desc("agent_peers", "How many.")
}

func (two) Collect(chan<- prometheus.Metric) {}

func TestNamesAreThoseThatAreTold(t *testing.T) {
	if got, want := fmt.Sprint(Names(two{})), "[shoal_update_blocked shoal_agent_peers]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
