package web

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"shoal/manifest"
	"shoal/publisher/fleet"
	"shoal/publisher/rollout"
	"shoal/publisher/view"
)

const (
	longText = 200 // letters of what a machine says, in a table
	longName = 64
	maxCells = 240 // of a piece map; more pieces share one
)

// functions are what the pages call.
func functions(now func() time.Time) template.FuncMap {
	return template.FuncMap{
		"ago":   func(t time.Time) string { return span(now().Sub(t)) },
		"left":  func(t time.Time) string { return span(t.Sub(now())) },
		"past":  func(t time.Time) bool { return !now().Before(t) },
		"soon":  func(t time.Time) bool { return t.Sub(now()) < 14*24*time.Hour },
		"days":  func(t time.Time) int { return int(t.Sub(now()) / (24 * time.Hour)) },
		"stamp": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"when":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
		"bytes": func(n int64) string { return humanize.IBytes(uint64(max(0, n))) },
		"comma": func(n int) string { return humanize.Comma(int64(n)) },
		"percent": func(a, of int) int {
			if of == 0 {
				return 0
			}
			return a * 100 / of // rounded down: 100 % is everybody
		},
		"text":  func(s string) string { return cut(s, longText) },
		"name":  func(s any) string { return cut(fmt.Sprint(s), longName) },
		"hash":  func(d fmt.Stringer) string { return cut(d.String(), 12) },
		"glyph": glyph, "share": share, "received": received, "sources": bySource, "canDo": canDo, "agentPath": func(id any) string { return agentPath(fmt.Sprint(id)) },
		"waveBar": waveBar, "versionBar": versionBar, "bytesBar": bytesBar, "pieceMap": pieceMap, "pieceWords": pieceWords, "plot": plot,
		"peak": peak, "state": func(a *fleet.Agent, i int) string { return a.State(i) }, "who": who, "inc": func(i int) int { return i + 1 },
	}
}

// cut shortens s to n letters.
func cut(s string, n int) string {
	i := 0
	for at := range s {
		if i == n {
			return s[:at] + "…"
		}
		i++
	}
	return s
}

// span is d as a person says it.
func span(d time.Duration) string {
	switch d = max(d, -d); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

// glyph is a sign beside the word of a state, so that nothing is said by colour alone.
func glyph(state string) string {
	switch state {
	case "healthy", "finished", "current", "everyone":
		return "✓"
	case "failed", "reverted", "blocked", "expired":
		return "✗"
	case "held", "paused", "waiting":
		return "‖"
	case "downloading", "staged", "committing", "confirming", "running":
		return "→"
	}
	return "?"
}

// received is all that machines got.
func received(b manifest.ByteCount) int64 { return b.LAN + b.WAN + b.Origin + b.Webseed }

// share is the part that came from other machines, in percent, rounded down.
func share(b manifest.ByteCount) int {
	all := received(b)
	if all == 0 {
		return 0
	}
	return int(float64(b.LAN+b.WAN) * 100 / float64(all))
}

type source struct {
	Name, Class string
	Bytes       int64
}

func bySource(b manifest.ByteCount) []source {
	return []source{{"neighbours on the LAN", "lan", b.LAN}, {"other machines", "wan", b.WAN}, {"the origin", "origin", b.Origin}, {"mirrors", "webseed", b.Webseed}}
}

// who says which machines a wave has.
func who(w rollout.WaveStatus) string {
	var parts []string
	for i, r := range w.Rings {
		if i == ringsShown {
			parts = append(parts, fmt.Sprintf("%d other rings", len(w.Rings)-i))
			break
		}
		parts = append(parts, "ring "+r)
	}
	if w.Percent > 0 {
		parts = append(parts, fmt.Sprintf("%d %%", w.Percent))
	}
	return strings.Join(parts, " or ")
}

// segment is a part of a bar.
type segment struct {
	class string
	n     int64
}

// bar draws parts of a whole, side by side. label is our own words.
func bar(label string, parts ...segment) template.HTML {
	all := int64(0)
	for _, p := range parts {
		all += max(0, p.n)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="%s">`, template.HTMLEscapeString(label))
	b.WriteString(`<rect class="track" width="1000" height="10"></rect>`)
	x := 0.0
	for _, p := range parts {
		if p.n <= 0 {
			continue
		}
		wide := float64(p.n) / float64(all) * 1000
		fmt.Fprintf(&b, `<rect class="f-%s" x="%.1f" width="%.1f" height="10"></rect>`, p.class, x, max(wide, 2))
		x += wide
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

func waveBar(c *rollout.Count) template.HTML {
	label := fmt.Sprintf("%d healthy, %d working, %d failed, %d not seen", c.Healthy, c.Working, c.Failed, c.NotSeen)
	return bar(label, segment{"good", int64(c.Healthy)}, segment{"busy", int64(c.Working)}, segment{"bad", int64(c.Failed)}, segment{"gone", int64(c.NotSeen)})
}

func versionBar(c view.Channel) template.HTML {
	label := "machines by version"
	var parts []segment
	for i, v := range c.Versions {
		class := fmt.Sprintf("v%d", min(i, 5))
		if v.Version == c.Version {
			class = "good"
		}
		parts = append(parts, segment{class, int64(v.Agents)})
	}
	return bar(label, parts...)
}

func bytesBar(b manifest.ByteCount) template.HTML {
	label := fmt.Sprintf("%d percent came from other machines", share(b))
	return bar(label, segment{"lan", b.LAN}, segment{"wan", b.WAN}, segment{"origin", b.Origin}, segment{"webseed", b.Webseed})
}

// pieceMap draws how often each piece is known to be somewhere: the taller, the oftener.
func pieceMap(copies []int) template.HTML {
	cells := min(len(copies), maxCells)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="pieces" viewBox="0 0 %d 40" preserveAspectRatio="none" role="img" aria-label="%s">`, max(cells, 1)*4, pieceWords(copies))
	fmt.Fprintf(&b, `<rect class="track" width="%d" height="40"></rect>`, max(cells, 1)*4)
	for i := range cells {
		part := copies[i*len(copies)/cells : (i+1)*len(copies)/cells]
		least := part[0]
		for _, n := range part {
			least = min(least, n)
		}
		if least <= 0 {
			continue
		}
		tall := 40 - 32/(least+1) // 24, 30, 32, ... 40: the first copies matter most
		fmt.Fprintf(&b, `<rect class="f-c%d" x="%d" y="%d" width="3.4" height="%d"></rect>`, min(least, 4), i*4, 40-tall, tall)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

// pieceWords is what the map says.
func pieceWords(copies []int) string {
	have, most := 0, 0
	for _, n := range copies {
		if n > 0 {
			have++
		}
		most = max(most, n)
	}
	return fmt.Sprintf("%d of %d pieces are with peers or on their way to one, %d times at most", have, len(copies), most)
}

func peak(rates []int64) int64 {
	most := int64(0)
	for _, r := range rates {
		most = max(most, r)
	}
	return most
}

// plot draws what the origin gave, over time.
func plot(rates []int64) template.HTML {
	const wide, tall = 600, 60
	most := max(peak(rates), 1)
	var line strings.Builder
	for i, r := range rates {
		fmt.Fprintf(&line, "%d,%d ", wide-(len(rates)-1-i)*4, tall-2-r*(tall-6)/most)
	}
	return template.HTML(fmt.Sprintf(`<svg class="plot" viewBox="0 0 %d %d" preserveAspectRatio="none" role="img" aria-label="what the origin gave in the last five minutes, at most %s a second"><rect class="track" width="%d" height="%d"></rect><polyline class="line" points="%s"></polyline></svg>`,
		wide, tall, humanize.IBytes(uint64(peak(rates))), wide, tall, strings.TrimSpace(line.String())))
}
