package agent

import (
	"testing"

	"shoal/agent/health"
	"shoal/agent/service"
)

// Where nothing is said of health, a program that has a service must stay up: one that
// crashes at once would count as healthy otherwise.
func TestHealthWhereNothingIsSaid(t *testing.T) {
	svc, err := service.Command(service.CommandConfig{Restart: []string{"/bin/true"}, Status: []string{"/bin/true"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		h    HealthConfig
		svc  service.Service
		none bool
	}{
		{"a-service", HealthConfig{}, svc, false},
		{"no-service", HealthConfig{}, service.None{}, true},
		{"none-is-asked-for", HealthConfig{Type: "none"}, svc, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := test.h.check(test.svc)
			if err != nil {
				t.Fatal(err)
			}
			if _, none := c.(health.None); none != test.none {
				t.Errorf("the check is %T", c)
			}
		})
	}
}
