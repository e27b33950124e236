package publisher

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/publisher/repo"
)

func TestPlatformOf(t *testing.T) {
	rows := []struct{ name, want string }{
		{"acme-linux-amd64", "linux/amd64"},
		{"dist/acme-windows-amd64.exe", "windows/amd64"},
		{"acme_2.4.1_Darwin_arm64", "darwin/arm64"},
		{"acme_Linux_x86_64.tar.gz", "linux/amd64"},
		{"acme-1.0.0-linux-aarch64", "linux/arm64"},
		{"acme-macos-arm64", "darwin/arm64"},
		{"acme", ""},
		{"linux", ""},
		{"acme-linux", ""},
		{"acme-linux-armv7", ""},
		{"acme-amd64-linux", ""},
		{"", ""},
	}
	for _, r := range rows {
		got, err := PlatformOf(r.name)
		if r.want == "" && err == nil || r.want != "" && (err != nil || got.String() != r.want) {
			t.Errorf("PlatformOf(%q) = %v, %v; want %q", r.name, got, err, r.want)
		}
	}
}

func TestHistoryAndChannelNames(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	p := f.open()
	if list, err := p.Releases(); err != nil || len(list) != 0 {
		t.Errorf("%v, %v before the first release", list, err)
	}
	f.publish("1.0.0", "one")
	f.publish("1.1.0", "two")
	list, err := p.Releases(stable)
	if err != nil || len(list) != 2 || list[0].Version != "1.1.0" || list[0].State != ReleaseCurrent || list[1].State != ReleaseReplaced {
		t.Errorf("%+v, %v", list, err)
	}
	for _, name := range []string{"1.0.0", "1.1"} {
		if r, err := p.Release(stable, name); err != nil || r.Version != "1.0.0" || r.SignedBy[0].Name != "release-1@acme" {
			t.Errorf("Release(%q) = %+v, %v", name, r, err)
		}
	}
	_, err = p.Release(stable, "9.9.9")
	wantCode(t, err, fault.NotFound)
	f.now = f.now.Add(DefaultMaxValidity)
	if list, err = p.Releases(stable); err != nil || list[0].State != ReleaseExpired {
		t.Errorf("%+v, %v after 90 days", list, err)
	}

	for _, name := range []string{"", "stable", "acme/stable"} {
		if ch, err := p.Channel(name); err != nil || ch != stable {
			t.Errorf("Channel(%q) = %v, %v", name, ch, err)
		}
	}
	for _, name := range []string{"beta", "other/stable"} {
		_, err := p.Channel(name)
		wantCode(t, err, fault.ChannelGone)
	}
	f.nextRoot(func(r *manifest.Root) {
		r.Channels = append(r.Channels, r.Channels[0])
		r.Channels[1].App = "other"
	})
	if _, err = p.Channel("stable"); err != nil {
		t.Errorf("the configured app does not decide: %v", err)
	}
	f.cfg.App = ""
	_, err = f.open().Channel("stable")
	wantCode(t, err, fault.Usage)
	_, err = f.open().Channel("")
	wantCode(t, err, fault.Usage)
}

func TestLink(t *testing.T) {
	f := newFleet(t, 1, "release-1@acme")
	_, err := f.open().Link(LinkRequest{Channel: stable})
	wantCode(t, err, fault.Config)
	f.publish("1.0.0", "one")
	f.cfg.Serve = ServeConfig{PublicURL: "https://updates.acme.lan:7800", Swarm: ":7801"}
	l, err := f.open().Link(LinkRequest{Channel: stable})
	if err != nil {
		t.Fatal(err)
	}
	if l.MinRoot != 1 || l.MinSequence.String() != "1.1" || !slices.Equal(l.At, []string{"https://updates.acme.lan:7800"}) ||
		!slices.Equal(l.Peers, []string{"updates.acme.lan:7801"}) {
		t.Errorf("link %+v", l)
	}
}

func TestConfigValidate(t *testing.T) {
	good := Config{Store: "/srv/acme", App: "acme", Channels: []ChannelConfig{{Name: "stable", Expires: time.Hour}},
		Serve: ServeConfig{Listen: ":0", Swarm: "[::1]:7801", PublicURL: "http://updates.acme.lan:7800", Up: 1}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name   string
		change func(*Config)
		key    string
	}{
		{"no-store", func(c *Config) { c.Store = "" }, "store"},
		{"app-with-traversal", func(c *Config) { c.App = "../acme" }, "app"},
		{"channel-without-name", func(c *Config) { c.Channels = []ChannelConfig{{}} }, "channels"},
		{"channel-twice", func(c *Config) { c.Channels = append(c.Channels, c.Channels...) }, "channels"},
		{"half-a-second", func(c *Config) { c.Channels = []ChannelConfig{{Name: "x", Expires: time.Second / 2}} }, "channels"},
		{"listen-without-port", func(c *Config) { c.Serve.Listen = "localhost" }, "serve.listen"},
		{"swarm-with-a-port-too-high", func(c *Config) { c.Serve.Swarm = ":70000" }, "serve.swarm"},
		{"public-url-without-host", func(c *Config) { c.Serve.PublicURL = "http://" }, "serve.public_url"},
		{"public-url-with-a-password", func(c *Config) { c.Serve.PublicURL = "http://a:b@c" }, "serve.public_url"},
		{"public-url-of-another-kind", func(c *Config) { c.Serve.PublicURL = "ftp://c" }, "serve.public_url"},
		{"interface-that-is-no-pattern", func(c *Config) { c.Serve.LAN.Interfaces = []string{"eth["} }, "serve.lan.interfaces"},
		{"negative-rate", func(c *Config) { c.Serve.Up = -1 }, "serve.up"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c := good
			r.change(&c)
			if e := wantCode(t, c.Validate(), fault.Config); e.Facts["key"] != r.key {
				t.Errorf("blames %v, want %s", e.Facts["key"], r.key)
			}
		})
	}
}

func TestOpenWithoutRepository(t *testing.T) {
	_, err := Open(Config{Store: t.TempDir()})
	wantCode(t, err, fault.NotFound)
	_, err = repo.Open(filepath.Join(t.TempDir(), "absent"))
	wantCode(t, err, fault.NotFound)
}
