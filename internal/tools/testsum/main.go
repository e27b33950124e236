// Command testsum reads the output of "go test -json" on standard input, shows what
// failed, why a test was skipped and how each package fared, and closes with one
// line that counts: "N passed, N failed, N skipped".
//
// It exits 1 when anything failed or when no test ran at all.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

func main() { os.Exit(run(os.Stdin, os.Stdout)) }

func run(in io.Reader, out io.Writer) int {
	var passed, failed, skipped int
	output := map[string][]string{} // of a test or, under the package's own name, of a package
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var e event
		if json.Unmarshal(sc.Bytes(), &e) != nil || e.Action == "" {
			fmt.Fprintln(out, sc.Text()) // build errors come as plain text
			continue
		}
		key := e.Package + "\x00" + e.Test
		switch e.Action {
		case "output", "build-output":
			output[key] = append(output[key], e.Output)
		case "pass", "fail", "skip":
			if e.Test == "" {
				verdict := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "none"}[e.Action]
				fmt.Fprintf(out, "%s  %-40s %6.2fs\n", verdict, e.Package, e.Elapsed)
				if e.Action == "fail" {
					failed++ // a package that does not build or that exits has no test to blame
					if hasTestFailure(output, e.Package) {
						failed--
					}
					fmt.Fprint(out, strings.Join(output[key], ""))
				}
				continue
			}
			switch e.Action {
			case "pass":
				passed++
				delete(output, key)
			case "fail":
				failed++
				fmt.Fprint(out, strings.Join(output[key], ""))
			case "skip":
				skipped++
				fmt.Fprintf(out, "skip  %s %s: %s\n", e.Package, e.Test, reason(output[key]))
				delete(output, key)
			}
		}
	}
	if err := sc.Err(); err != nil {
		fmt.Fprintln(out, "testsum: reading the test output:", err)
		failed++
	}
	if passed+failed == 0 {
		fmt.Fprintln(out, "testsum: no test ran")
		failed++
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if failed > 0 {
		return 1
	}
	return 0
}

func hasTestFailure(output map[string][]string, pkg string) bool {
	for key, lines := range output {
		if p, test, _ := strings.Cut(key, "\x00"); p == pkg && test != "" {
			for _, l := range lines {
				if strings.HasPrefix(strings.TrimSpace(l), "--- FAIL") {
					return true
				}
			}
		}
	}
	return false
}

// reason finds what a skipped test printed, which is the line before its verdict.
func reason(lines []string) string {
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "===") && !strings.HasPrefix(l, "---") {
			return l
		}
	}
	return "no reason given"
}
