package main

import (
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	rows := []struct {
		name, in, want string
		exit           int
	}{
		{"passes-and-skips-are-counted",
			`{"Action":"pass","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Test":"B","Output":"    b_test.go:9: needs root\n"}
{"Action":"skip","Package":"p","Test":"B"}
{"Action":"pass","Package":"p"}`, "1 passed, 0 failed, 1 skipped\n", 0},
		{"a-failed-test-fails-the-run-once",
			`{"Action":"output","Package":"p","Test":"A","Output":"--- FAIL: A\n"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"fail","Package":"p"}`, "0 passed, 1 failed, 0 skipped\n", 1},
		{"a-package-that-does-not-build-fails-the-run",
			`{"Action":"pass","Package":"q","Test":"A"}
{"Action":"fail","Package":"p"}`, "1 passed, 1 failed, 0 skipped\n", 1},
		{"no-test-at-all-fails-the-run", ``, "0 passed, 1 failed, 0 skipped\n", 1},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			var out strings.Builder
			exit := run(strings.NewReader(r.in), &out)
			if exit != r.exit || !strings.HasSuffix(out.String(), r.want) {
				t.Errorf("exit %d, output:\n%s\nwant exit %d and the closing line %q", exit, out.String(), r.exit, r.want)
			}
		})
	}
	var out strings.Builder
	run(strings.NewReader(rows[0].in), &out)
	if !strings.Contains(out.String(), "needs root") {
		t.Errorf("the reason of a skip is not shown:\n%s", out.String())
	}
}
