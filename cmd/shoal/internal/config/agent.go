package config

import (
	"shoal/agent/window"
	"shoal/cmd/shoal/internal/units"
)

// Agent is agent.yaml.
type Agent struct {
	FleetID         string         `yaml:"fleet_id" mapstructure:"fleet_id" doc:"compared with the pin in join.json; a difference stops the agent"`
	FleetKeyFile    string         `yaml:"fleet_key_file" mapstructure:"fleet_key_file" doc:"the fleet's key, if it has one; agent join --fleet-key puts it there"`
	Listen          string         `yaml:"listen" mapstructure:"listen" doc:"where peers reach this machine, host:port"`
	Peers           []string       `yaml:"peers" mapstructure:"peers" doc:"host:port of peers to know for ever"`
	Trackers        []string       `yaml:"trackers" mapstructure:"trackers" doc:"announce URLs; empty means /announce below every source"`
	Apps            []App          `yaml:"apps" mapstructure:"apps" doc:"the programs kept up to date; agent join writes an entry"`
	Check           Check          `yaml:"check" mapstructure:"check" doc:"how often sources are asked"`
	Time            string         `yaml:"time" mapstructure:"time" doc:"system, or floor where no clock can be trusted"`
	Labels          []Label        `yaml:"labels" mapstructure:"labels" doc:"this machine's own words about itself; ring places it in a rollout"`
	Sources         Sources        `yaml:"sources" mapstructure:"sources" doc:"where documents come from: base URLs, or directories"`
	Reports         Reports        `yaml:"reports" mapstructure:"reports" doc:"telling the publisher how this machine stands, and why"`
	Limits          Limits         `yaml:"limits" mapstructure:"limits" doc:"bytes per second; 0 is no limit; LAN is apart from the rest"`
	Disk            Disk           `yaml:"disk" mapstructure:"disk" doc:"the cache of downloads"`
	Prefetch        string         `yaml:"prefetch" mapstructure:"prefetch" doc:"auto: fetch before this machine's wave opens, where that is large and near; off, for links paid by volume"`
	SeedAfterUpdate units.Duration `yaml:"seed_after_update" mapstructure:"seed_after_update" doc:"how long a replaced release is still given to neighbours"`
	Settle          units.Duration `yaml:"settle" mapstructure:"settle" doc:"how long a new version of the agent itself must run before it is confirmed"`
	Metrics         Metrics        `yaml:"metrics" mapstructure:"metrics" doc:"numbers for Prometheus"`
	Log             Log            `yaml:"log" mapstructure:"log" doc:"what the agent writes about itself"`
}

// App is one program kept up to date.
type App struct {
	Name             string          `yaml:"name" mapstructure:"name" doc:"the app's name in its channel"`
	Channel          string          `yaml:"channel" mapstructure:"channel" doc:"the channel to follow"`
	Target           string          `yaml:"target" mapstructure:"target" doc:"absolute path of the program; of a tree, the directory with current and versions; of an installer, where its package is kept"`
	Kind             string          `yaml:"kind" mapstructure:"kind" doc:"the kind of artifact expected: binary, tree or installer"`
	Variant          string          `yaml:"variant" mapstructure:"variant" doc:"the variant of artifact to choose; empty means none"`
	Service          Service         `yaml:"service" mapstructure:"service" doc:"what runs the program; nothing when left out"`
	Health           Health          `yaml:"health" mapstructure:"health" doc:"when a new version is well"`
	Hooks            Hooks           `yaml:"hooks" mapstructure:"hooks" doc:"programs run around an update, as argument lists"`
	Installer        Installer       `yaml:"installer" mapstructure:"installer" doc:"for kind installer: the programs that install a package"`
	Keep             int             `yaml:"keep" mapstructure:"keep" doc:"previous versions kept beside the target; 0 means 2"`
	Windows          []window.Window `yaml:"windows" mapstructure:"windows" doc:"when an update may begin, as Mon-Fri 22:00-05:00 Europe/Berlin; none means any time"`
	Swap             string          `yaml:"swap" mapstructure:"swap" doc:"rename or selfupdate"`
	AllowInstall     bool            `yaml:"allow_install" mapstructure:"allow_install" default:"true" doc:"a program that is missing is installed; false makes it an error"`
	AllowInsecureDir bool            `yaml:"allow_insecure_dir" mapstructure:"allow_insecure_dir" doc:"the target's directory may be writable by others"`
}

// Service says what runs a program.
type Service struct {
	Systemd string         `yaml:"systemd" mapstructure:"systemd" doc:"a systemd unit"`
	Launchd string         `yaml:"launchd" mapstructure:"launchd" doc:"on macOS: the label of a system-wide job"`
	Windows string         `yaml:"windows" mapstructure:"windows" doc:"on Windows: the name of a service"`
	Command ServiceCommand `yaml:"command" mapstructure:"command" doc:"programs that control it"`
}

// ServiceCommand controls a program by running others, as argument lists.
type ServiceCommand struct {
	Start   []string `yaml:"start" mapstructure:"start"`
	Stop    []string `yaml:"stop" mapstructure:"stop"`
	Restart []string `yaml:"restart" mapstructure:"restart"`
	Status  []string `yaml:"status" mapstructure:"status"`
}

// Health is the check of a new version.
type Health struct {
	Type      string         `yaml:"type" mapstructure:"type" doc:"none, stay-up, command, http or tcp; if empty, stay-up with a service, else none"`
	Command   []string       `yaml:"command" mapstructure:"command" doc:"for command: exit status 0 is well"`
	URL       string         `yaml:"url" mapstructure:"url" doc:"for http"`
	Address   string         `yaml:"address" mapstructure:"address" doc:"for tcp, host:port"`
	Timeout   units.Duration `yaml:"timeout" mapstructure:"timeout" doc:"by when it must be well"`
	Interval  units.Duration `yaml:"interval" mapstructure:"interval" doc:"between two tries"`
	Successes int            `yaml:"successes" mapstructure:"successes" doc:"this many in a row"`
	Require   bool           `yaml:"require" mapstructure:"require" doc:"decides even where the old version failed it too"`
}

// Hooks are programs run around an update.
type Hooks struct {
	Pre      []string       `yaml:"pre" mapstructure:"pre" doc:"before the swap; a failure ends the update"`
	Post     []string       `yaml:"post" mapstructure:"post" doc:"after the new version is confirmed"`
	OnRevert []string       `yaml:"on_revert" mapstructure:"on_revert" doc:"after the old version was put back"`
	Timeout  units.Duration `yaml:"timeout" mapstructure:"timeout" doc:"each hook's bound"`
}

// Installer are the programs that install packages.
type Installer struct {
	Command    []string       `yaml:"command" mapstructure:"command" doc:"installs the package {file}, as in [dpkg, --install, '{file}']"`
	Revert     []string       `yaml:"revert" mapstructure:"revert" doc:"puts the package before back; without it nothing is put back by itself"`
	Success    []int          `yaml:"success" mapstructure:"success" doc:"exit statuses besides 0 that mean it is done; on Windows 1641 and 3010"`
	RetryLater []int          `yaml:"retry_later" mapstructure:"retry_later" doc:"those that mean another time; on Windows 1618"`
	Idempotent bool           `yaml:"idempotent" mapstructure:"idempotent" doc:"both may be run again, whatever an interrupted run left"`
	Timeout    units.Duration `yaml:"timeout" mapstructure:"timeout" doc:"each command's bound; 0 means 30 minutes"`
}

// Check says how often sources are asked.
type Check struct {
	Every  units.Duration `yaml:"every" mapstructure:"every" doc:"mean time between two checks"`
	Jitter units.Percent  `yaml:"jitter" mapstructure:"jitter" doc:"by how much a check may be early or late"`
}

// Label is one of a machine's words about itself.
type Label struct {
	Name  string `yaml:"name" mapstructure:"name"`
	Value string `yaml:"value" mapstructure:"value"`
}

// Sources are where documents come from.
type Sources struct {
	Publisher string   `yaml:"publisher" mapstructure:"publisher" doc:"the publisher's shoal serve"`
	Mirrors   []string `yaml:"mirrors" mapstructure:"mirrors" doc:"copies of the publisher's files on any web server"`
	LAN       LAN      `yaml:"lan" mapstructure:"lan" doc:"peers on this machine's own networks, found by multicast"`
}

// LAN says how peers on a machine's own networks are looked for.
type LAN struct {
	Enabled    bool     `yaml:"enabled" mapstructure:"enabled" doc:"announce to them, and listen"`
	Interfaces []string `yaml:"interfaces" mapstructure:"interfaces" doc:"such as eth* or, to leave some out, !docker*; empty is every one with multicast"`
}

// Reports says who is told how a machine stands.
type Reports struct {
	Enabled bool           `yaml:"enabled" mapstructure:"enabled" doc:"report, signed with this machine's own key"`
	To      []string       `yaml:"to" mapstructure:"to" doc:"base URLs of shoal serve; empty means sources.publisher"`
	Every   units.Duration `yaml:"every" mapstructure:"every" doc:"mean time between two reports when nothing changes"`
}

// Limits bound what the agent takes from the network.
type Limits struct {
	Up      units.Size `yaml:"up" mapstructure:"up"`
	Down    units.Size `yaml:"down" mapstructure:"down"`
	LANUp   units.Size `yaml:"lan_up" mapstructure:"lan_up"`
	LANDown units.Size `yaml:"lan_down" mapstructure:"lan_down"`
	Peers   int        `yaml:"peers" mapstructure:"peers" doc:"neighbours per release; 0 means a default"`
}

// Disk bounds the cache.
type Disk struct {
	Cache   units.Size `yaml:"cache" mapstructure:"cache" doc:"the most the cache may hold; 0 is no bound"`
	Reserve units.Size `yaml:"reserve" mapstructure:"reserve" doc:"what stays free on its filesystem"`
}

// Metrics says where an agent's numbers go.
type Metrics struct {
	Listen string `yaml:"listen" mapstructure:"listen" doc:"a Unix socket, unix:/run/shoal/metrics.sock; empty: none"`
	File   string `yaml:"file" mapstructure:"file" doc:"or a file for a node exporter, rewritten every 15 s; empty: none"`
}

// Log says what a long-running command writes to standard error.
type Log struct {
	Level  string `yaml:"level" mapstructure:"level" doc:"debug, info, warn or error"`
	Format string `yaml:"format" mapstructure:"format" doc:"auto, text or json"`
}

// DefaultAgent is what an empty agent.yaml means.
func DefaultAgent() Agent {
	return Agent{
		Listen:          ":7801",
		Check:           Check{Every: units.Duration(15 * minute), Jitter: 0.2},
		Time:            "system",
		Sources:         Sources{LAN: LAN{Enabled: true}},
		Reports:         Reports{Enabled: true, Every: units.Duration(10 * minute)},
		Disk:            Disk{Cache: 2e9, Reserve: 500e6},
		Prefetch:        "auto",
		SeedAfterUpdate: units.Duration(24 * 60 * minute),
		Settle:          units.Duration(minute),
		Log:             Log{Level: "info", Format: "auto"},
	}
}
