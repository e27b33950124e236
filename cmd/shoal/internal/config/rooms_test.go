package config

import (
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shoal/agent/window"
)

// A key that is read and goes nowhere is a promise that is not kept.
func TestEveryKeyReachesItsRoom(t *testing.T) {
	var a Agent
	fill(reflect.ValueOf(&a).Elem())
	rows := []struct {
		name string
		got  any
		// What comes from elsewhere: flags, this build, the place of the files.
		otherwise []string
	}{
		{"agent", a.Config(), []string{"StateDir", "JoinFile", "AnchorFile", "CacheDir", "Origins", "Platform", "FleetKeys", "FleetCredentials", "Apps.RefuseInstall", "Reports.Disabled", "Self.Check", "Self.Program", "Version", "Build", "Clock", "Logger"}},
		{"publisher", func() any {
			var p Publisher
			fill(reflect.ValueOf(&p).Elem())
			return p.Config()
		}(), []string{"Logger", "Clock", "FleetCredentials", "Serve.Beacon", "UI.Disabled", "UI.Version", "Channels.Rollout.MinReports"}},
	}
	for _, r := range rows {
		var unset []string
		v := reflect.ValueOf(r.got)
		for _, f := range reflect.VisibleFields(v.Type()) {
			if f.IsExported() {
				collectZero(v.FieldByIndex(f.Index), f.Name, &unset)
			}
		}
		slices.Sort(unset)
		slices.Sort(r.otherwise)
		if d := cmp.Diff(r.otherwise, unset); d != "" {
			t.Errorf("%s: fields that no key sets (-expected +found):\n%s", r.name, d)
		}
	}
}

// fill sets everything to something that is not zero; lists get one entry.
func fill(v reflect.Value) {
	if w, ok := v.Addr().Interface().(*window.Window); ok { // its fields are its own
		*w, _ = window.Parse("Sat-Sun any")
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Float64:
		v.SetFloat(0.5)
	}
}

func collectZero(v reflect.Value, name string, unset *[]string) {
	switch {
	case v.Kind() == reflect.Struct && !v.IsZero():
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				collectZero(v.Field(i), name+"."+f.Name, unset)
			}
		}
	case v.Kind() == reflect.Slice && v.Len() > 0:
		collectZero(v.Index(0), name, unset)
	case v.IsZero():
		*unset = append(*unset, name)
	}
}
