package manifest_test

import (
	"strings"
	"testing"

	"shoal/internal/fault"
	mt "shoal/manifest/manifesttest"
)

// TestFieldRules breaks one member of a manifest that is signed to the threshold.
func TestFieldRules(t *testing.T) {
	hex63 := strings.Repeat("0", 63)
	many := func(n int, v any) []any {
		list := make([]any, n)
		for i := range list {
			list[i] = v
		}
		return list
	}
	wave := func(name string, more map[string]any) map[string]any {
		w := map[string]any{"name": name, "after": "0s", "percent": 10}
		for k, v := range more {
			if w[k] = v; v == nil {
				delete(w, k)
			}
		}
		return w
	}
	plan := func(waves ...any) map[string]any {
		return map[string]any{"salt": "b1946ac9", "start": "2026-10-12T22:00:00Z", "waves": waves}
	}
	rows := []struct {
		name  string
		path  string
		value any
		want  fault.Code
	}{
		{"time-with-zone", "issued", "2026-10-12T10:00:00+00:00", fault.Malformed},
		{"time-with-fraction", "issued", "2026-10-12T10:00:00.5Z", fault.Malformed},
		{"time-in-lower-case", "issued", "2026-10-12t10:00:00z", fault.Malformed},
		{"time-with-one-digit-hour", "issued", "2026-10-12T1:00:00Z", fault.Malformed},
		{"time-on-a-day-that-is-none", "issued", "2026-02-30T10:00:00Z", fault.Malformed},
		{"time-with-a-leap-second", "expires", "2026-12-31T23:59:60Z", fault.Malformed},

		{"version-empty", "release.version", "", fault.Malformed},
		{"version-too-long", "release.version", strings.Repeat("1", 65), fault.Malformed},
		{"version-with-slash", "release.version", "1/2", fault.Malformed},
		{"version-that-leads-up", "release.version", "1..2", fault.Malformed},
		{"notes-with-escape-sequence", "release.notes", "\x1b[31m", fault.Malformed},
		{"notes-with-bidi-override", "release.notes", "safe \u202e.exe", fault.Malformed},
		{"notes-with-bidi-isolate", "release.notes", "\u2066x\u2069", fault.Malformed},
		{"notes-with-tab", "release.notes", "a\tb", fault.Malformed},
		{"notes-with-carriage-return", "release.notes", "a\r\nb", fault.Malformed},
		{"notes-with-c1-control", "release.notes", "a\u0085b", fault.Malformed},
		{"notes-too-long", "release.notes", strings.Repeat("x", 4097), fault.Malformed},
		{"immediate-as-text", "release.immediate", "yes", fault.Malformed},

		{"no-artifacts", "artifacts", []any{}, fault.Malformed},
		{"too-many-artifacts", "artifacts", many(257, map[string]any{}), fault.Malformed},
		{"kind-unknown", "artifacts.0.kind", "script", fault.Malformed},
		{"os-empty", "artifacts.0.os", "", fault.Malformed},
		{"variant-empty", "artifacts.0.variant", "", fault.Malformed},
		{"length-zero", "artifacts.0.length", 0, fault.Malformed},
		{"length-negative", "artifacts.0.length", -1, fault.Malformed},
		{"digest-too-short", "artifacts.0.sha256", hex63, fault.Malformed},
		{"digest-in-upper-case", "artifacts.0.sha256", hex63 + "A", fault.Malformed},
		{"digest-with-prefix", "artifacts.0.sha256", "sha256:" + hex63 + "a", fault.Malformed},
		{"no-payloads", "artifacts.0.payloads", []any{}, fault.Malformed},
		{"too-many-payloads", "artifacts.0.payloads", many(17, map[string]any{}), fault.Malformed},
		{"payload-of-another-length", "artifacts.0.payloads.0.length", 5, fault.Malformed},
		{"payload-of-another-digest", "artifacts.0.payloads.0.sha256", hex63 + "a", fault.Malformed},
		{"infohash-of-sha256-length", "artifacts.0.payloads.0.infohash", hex63 + "a", fault.Malformed},
		{"payload-from-bad", "artifacts.0.payloads.0.from", "x", fault.Malformed},

		{"mode-setuid", "artifacts.0.mode", "4755", fault.Policy},
		{"mode-world-writable", "artifacts.0.mode", "0777", fault.Policy},
		{"mode-without-zero", "artifacts.0.mode", "755", fault.Policy},
		{"mode-empty", "artifacts.0.mode", "", fault.Policy},
		{"binary-that-is-not-executable", "artifacts.0.mode", "0644", fault.Policy},
		{"mode-as-number", "artifacts.0.mode", 755, fault.Malformed},

		{"path-up", "artifacts.0.name", "../x", fault.UnsafePath},
		{"path-absolute", "artifacts.0.name", "/etc/x", fault.UnsafePath},
		{"path-with-directory", "artifacts.0.name", "a/b", fault.UnsafePath},
		{"path-of-windows", "artifacts.0.name", `C:\\x`, fault.UnsafePath},
		{"path-device", "artifacts.0.name", "CON", fault.UnsafePath},
		{"path-device-in-lower-case", "artifacts.0.name", "con", fault.UnsafePath},
		{"path-device-with-extension", "artifacts.0.name", "nul.txt", fault.UnsafePath},
		{"path-device-with-number", "artifacts.0.name", "com1", fault.UnsafePath},
		{"path-dot", "artifacts.0.name", ".", fault.UnsafePath},
		{"path-empty", "artifacts.0.name", "", fault.UnsafePath},
		{"path-two-dots-inside", "artifacts.0.name", "a..b", fault.UnsafePath},
		{"path-dot-at-end", "artifacts.0.name", "acme.", fault.UnsafePath},
		{"path-hidden", "artifacts.0.name", ".profile", fault.UnsafePath},
		{"path-option", "artifacts.0.name", "-rf", fault.UnsafePath},
		{"path-nul", "artifacts.0.name", "a\x00b", fault.UnsafePath},
		{"path-too-long", "artifacts.0.name", strings.Repeat("a", 65), fault.UnsafePath},
		{"attachment-path-up", "attachments", []any{map[string]any{"name": "../x", "length": 1, "sha256": hex63 + "a"}}, fault.UnsafePath},

		{"too-many-blocked", "blocked", many(1025, map[string]any{"sha256": hex63 + "a"}), fault.Malformed},
		{"blocked-without-digest", "blocked", []any{map[string]any{}}, fault.Malformed},
		{"blocked-with-two-line-reason", "blocked", []any{map[string]any{"sha256": hex63 + "a", "reason": "a\nb"}}, fault.Malformed},
		{"too-many-attachments", "attachments", many(17, map[string]any{"name": "x", "length": 1, "sha256": hex63 + "a"}), fault.Malformed},
		{"attachment-without-length", "attachments", []any{map[string]any{"name": "x", "sha256": hex63 + "a"}}, fault.Malformed},

		{"waves-too-many", "rollout", plan(many(65, wave("w", nil))...), fault.Malformed},
		{"waves-with-one-name", "rollout", plan(wave("a", nil), wave("a", nil)), fault.Malformed},
		{"wave-percent-zero", "rollout", plan(wave("a", map[string]any{"percent": 0})), fault.Malformed},
		{"wave-percent-101", "rollout", plan(wave("a", map[string]any{"percent": 101})), fault.Malformed},
		{"wave-percent-falls", "rollout", plan(wave("a", map[string]any{"percent": 20}), wave("b", nil)), fault.Malformed},
		{"wave-percent-falls-after-a-ring", "rollout", plan(wave("a", map[string]any{"percent": 20}),
			wave("b", map[string]any{"percent": nil, "rings": []string{"x"}}), wave("c", nil)), fault.Malformed},
		{"wave-after-falls", "rollout", plan(wave("a", map[string]any{"after": "1h"}), wave("b", map[string]any{"after": "30m"})), fault.Malformed},
		{"wave-for-nobody", "rollout", plan(wave("a", map[string]any{"percent": nil})), fault.Malformed},
		{"wave-without-after", "rollout", plan(wave("a", map[string]any{"after": nil})), fault.Malformed},
		{"second-wave-without-after", "rollout", plan(wave("a", map[string]any{"after": "1h"}), wave("b", map[string]any{"after": nil})), fault.Malformed},
		{"wave-gate-unknown", "rollout", plan(wave("a", map[string]any{"gate": "moon"})), fault.Malformed},
		{"wave-ring-no-name", "rollout", plan(wave("a", map[string]any{"rings": []string{"A B"}})), fault.Malformed},
		{"wave-too-many-rings", "rollout", plan(wave("a", map[string]any{"rings": many(17, "x")})), fault.Malformed},
		{"waves-without-start", "rollout", map[string]any{"salt": "x", "waves": []any{wave("a", nil)}}, fault.Malformed},
		{"waves-without-salt", "rollout", map[string]any{"start": "2026-10-12T22:00:00Z", "waves": []any{wave("a", nil)}}, fault.Malformed},
		{"retry-negative", "rollout", map[string]any{"retry": -1}, fault.Malformed},
		{"stop-over-100", "rollout", map[string]any{"stop": map[string]any{"failed_percent": 101, "min_reports": 1}}, fault.Malformed},
		{"duration-in-days", "rollout", plan(wave("a", map[string]any{"after": "1d"})), fault.Malformed},
		{"duration-compound", "rollout", plan(wave("a", map[string]any{"after": "1h30m"})), fault.Malformed},
		{"duration-leading-zero", "rollout", plan(wave("a", map[string]any{"after": "01h"})), fault.Malformed},
		{"duration-zero-hours", "rollout", plan(wave("a", map[string]any{"after": "0h"})), fault.Malformed},
		{"duration-negative", "rollout", plan(wave("a", map[string]any{"after": "-1h"})), fault.Malformed},
		{"duration-that-wraps", "rollout", plan(wave("a", map[string]any{"after": "99999999999999h"})), fault.Malformed},
		{"duration-without-unit", "rollout", plan(wave("a", map[string]any{"after": "5"})), fault.Malformed},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := mt.New(t)
			trust := f.Trust()
			take(t, trust, mt.Stable, f.Manifest(mt.Stable, 42))
			before := trust.Snapshot()
			_, _, err := begin(t, trust).Manifest(mt.Stable, f.Manifest(mt.Stable, 43, mt.Set(r.path, r.value)))
			refused(t, err, r.want)
			unchanged(t, before, trust)
		})
	}
}
