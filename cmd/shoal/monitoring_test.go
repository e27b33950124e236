package main

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"

	agentmetrics "shoal/agent/metrics"
	"shoal/publisher/metrics"
)

// The dashboard and the alert rules are of metrics that there are.
func TestMonitoringNamesMetricsThatAreThere(t *testing.T) {
	there := append(metrics.Names(), agentmetrics.Names()...)
	if len(there) < 25 {
		t.Fatalf("only %d metrics: %q", len(there), there)
	}
	named := regexp.MustCompile(`shoal_[a-z_]+`)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	b, err := os.ReadFile("../../deploy/grafana/shoal.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile("../../deploy/prometheus/alerts.yml"); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &rules); err != nil {
		t.Fatal(err)
	}
	exprs := map[string]string{}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			exprs["panel "+p.Title+" "+target.Expr] = target.Expr
		}
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			exprs["alert "+r.Alert] = r.Expr
			if r.Annotations["summary"] == "" || r.Annotations["next"] == "" {
				t.Errorf("%s does not say what is wrong, or what to do", r.Alert)
			}
		}
	}
	if len(exprs) < 18 {
		t.Errorf("%d expressions", len(exprs))
	}
	// Of two numbers without labels "or" leaves the second out, always.
	bare := regexp.MustCompile(`\)\s*or\s+(min|max|sum|avg|count)\(`)
	for where, expr := range exprs {
		if bare.MatchString(expr) {
			t.Errorf("%s never says what is behind its or: %s", where, expr)
		}
		names := named.FindAllString(expr, -1)
		if len(names) == 0 {
			t.Errorf("%s names no metric", where)
		}
		for _, name := range names {
			if !slices.Contains(there, name) {
				t.Errorf("%s names %s, which there is not", where, name)
			}
		}
	}
}
