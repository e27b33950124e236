package config

import "shoal/cmd/shoal/internal/units"

// Publisher is publisher.yaml.
type Publisher struct {
	App          string    `yaml:"app" mapstructure:"app" doc:"the app this publisher releases"`
	Keys         Keyring   `yaml:"keys" mapstructure:"keys" doc:"who signs: references file: agent: env: stdin: cmd:"`
	Channels     []Channel `yaml:"channels" mapstructure:"channels" doc:"the app's channels"`
	Serve        Serve     `yaml:"serve" mapstructure:"serve" doc:"how releases are given away"`
	FleetKeyFile string    `yaml:"fleet_key_file" mapstructure:"fleet_key_file" doc:"keeps strangers out; without one, whoever reaches the publisher can read releases"`
	Approve      string    `yaml:"approve" mapstructure:"approve" doc:"whose reports count: manual, of machines a person approved; members: of all with the fleet key, and one that is stolen can invent many"`
	Webhooks     []Webhook `yaml:"webhooks" mapstructure:"webhooks" doc:"who is told what happens in the fleet, while shoal serve runs"`
	UI           UI        `yaml:"ui" mapstructure:"ui" doc:"the fleet page, its interface and /metrics, on serve.listen"`
	Mirrors      []string  `yaml:"mirrors" mapstructure:"mirrors" doc:"other places that serve a copy, compared before anything is signed"`
	Store        string    `yaml:"store" mapstructure:"store" doc:"where releases are kept"`
	Log          Log       `yaml:"log" mapstructure:"log" doc:"what shoal serve writes about itself"`
}

// Keyring names the keys that sign.
type Keyring struct {
	Release        []string `yaml:"release" mapstructure:"release" doc:"sign releases; a relative path is beside this file"`
	Beacon         string   `yaml:"beacon" mapstructure:"beacon" doc:"signs beacons: shoal serve then opens gates and holds rollouts; empty: it does not"`
	PassphraseFile string   `yaml:"passphrase_file" mapstructure:"passphrase_file" doc:"the keys' passphrase, where nobody can be asked"`
}

// Channel is one channel's habits.
type Channel struct {
	Name    string         `yaml:"name" mapstructure:"name"`
	Expires units.Duration `yaml:"expires" mapstructure:"expires" doc:"how long a release stays believed"`
	Rollout Rollout        `yaml:"rollout" mapstructure:"rollout" doc:"how a release reaches the machines, unless publish says otherwise"`
}

// Rollout is a channel's usual plan.
type Rollout struct {
	Waves        []string       `yaml:"waves" mapstructure:"waves" doc:"such as [ring:canary, 10%, 50%, 100%]; none: everyone at once"`
	Soak         units.Duration `yaml:"soak" mapstructure:"soak" doc:"the least time a wave stands before the next opens; 0 means 30m"`
	StopAtFailed units.Percent  `yaml:"stop_at_failed" mapstructure:"stop_at_failed" doc:"failed machines at which the rollout is held; 0% means 5%"`
}

// Webhook is told what happens in the fleet.
type Webhook struct {
	URL        string   `yaml:"url" mapstructure:"url" doc:"gets each event as a POST that chat servers understand"`
	Exec       []string `yaml:"exec" mapstructure:"exec" doc:"or a program, which gets it as JSON on standard input"`
	On         []string `yaml:"on" mapstructure:"on" doc:"kinds of events, as in [rollout.*, agent.failed, expiry.soon]"`
	SecretFile string   `yaml:"secret_file" mapstructure:"secret_file" doc:"signs the posts: Shoal-Signature; its owner alone can read it"`
}

// UI says who may look at the fleet.
type UI struct {
	Enabled    bool   `yaml:"enabled" mapstructure:"enabled" doc:"false: none of it is served"`
	TokensFile string `yaml:"tokens_file" mapstructure:"tokens_file" doc:"lines ROLE NAME TOKEN, with viewer or operator; without it only this machine's users may look"`
	Cert       string `yaml:"cert" mapstructure:"cert" doc:"a certificate that browsers trust, for another name than machines use; PEM"`
	Key        string `yaml:"key" mapstructure:"key" doc:"the key of cert"`
}

// Serve says how releases are given away.
type Serve struct {
	Listen    string     `yaml:"listen" mapstructure:"listen" doc:"HTTP: documents, tracker; host:port"`
	Swarm     string     `yaml:"swarm" mapstructure:"swarm" doc:"BitTorrent, host:port"`
	PublicURL string     `yaml:"public_url" mapstructure:"public_url" doc:"how machines reach it, as join links say"`
	TLS       string     `yaml:"tls" mapstructure:"tls" doc:"auto: https in a fleet with a key; off: http, which needs open_data there"`
	OpenData  bool       `yaml:"open_data" mapstructure:"open_data" doc:"in a fleet with a key: strangers may read every release all the same"`
	Up        units.Size `yaml:"up" mapstructure:"up" doc:"bytes per second to all machines; 0 is no limit"`
	LAN       LAN        `yaml:"lan" mapstructure:"lan" doc:"machines on the publisher's own networks, found by multicast"`
}

// DefaultPublisher is what an empty publisher.yaml means.
func DefaultPublisher() Publisher {
	return Publisher{
		Serve:   Serve{Listen: ":7800", Swarm: ":7801", TLS: "auto", LAN: LAN{Enabled: true}},
		UI:      UI{Enabled: true},
		Approve: "manual",
		Store:   "/var/lib/shoal-publisher",
		Log:     Log{Level: "info", Format: "auto"},
	}
}
