package publisher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"shoal/internal/durable"
	"shoal/internal/fault"
	"shoal/keys"
	"shoal/manifest"
	"shoal/manifest/tree"
	"shoal/publisher/repo"
	"shoal/swarm/fleet"
)

// How long things are believed unless InitRequest says otherwise.
const (
	DefaultMaxValidity  = 90 * 24 * time.Hour
	DefaultRootValidity = 2 * 365 * 24 * time.Hour
	DefaultStaleAfter   = 48 * time.Hour // a beacon
)

const fleetKeyName = "fleet" // beside the other keys

// InitRequest says what fleet to make.
type InitRequest struct {
	App      string   // must be set
	Channels []string // names without the app; one or more

	RootKeys      int // made; zero means 2, so that one can be lost
	RootThreshold int // of them that must sign a root; zero means 1
	ReleaseKeys   int // made; zero means as many as Threshold
	Threshold     int // of them that must sign a release; zero means 1

	MaxValidity  time.Duration // longest a release is believed; zero means DefaultMaxValidity
	RootValidity time.Duration // how long root is; zero means DefaultRootValidity

	// Beacon makes a key too that opens the gates of rollouts; for a fleet of one channel,
	// since a beacon's key has one.
	Beacon bool

	NoFleetKey bool // make an open fleet: whoever reaches it can read its releases

	KeyDir     string // where the keys go; must be set
	ConfigFile string // publisher.yaml; must be set
	Store      string // directory of the repository; must be set
	PublicURL  string // how machines will reach Serve, or empty

	// Passphrase is asked once, for all keys. If nil, or when it returns nothing, the
	// keys are written unprotected.
	Passphrase keys.PassphraseFunc
	// Clock is the time source. If nil, it is time.Now.
	Clock func() time.Time
}

// InitResult says what Init made, or found.
type InitResult struct {
	FleetID      manifest.FleetID   `json:"fleet_id"`
	Channels     []manifest.Channel `json:"channels"`
	RootKeys     []KeyFile          `json:"root_keys"`
	ReleaseKeys  []KeyFile          `json:"release_keys"`
	BeaconKeys   []KeyFile          `json:"beacon_keys"`            // one, or none
	FleetKey     string             `json:"fleet_key,omitempty"`    // file; empty for an open fleet
	FleetKeyID   string             `json:"fleet_key_id,omitempty"` // says which key it is, and not what
	RootNeeds    int                `json:"root_threshold"`
	ReleaseNeeds int                `json:"release_threshold"`
	Protected    bool               `json:"passphrase"`
	Config       string             `json:"config"`
	Store        string             `json:"store"`
	Already      bool               `json:"already"` // it was there, and nothing was changed
}

// KeyFile is a private key on disk.
type KeyFile struct {
	Path string  `json:"path"`
	ID   keys.ID `json:"id"`
}

func (r *InitRequest) validate() error {
	if !manifest.ValidName(r.App) {
		return fault.New(fault.Usage, "%q cannot be the name of an app", r.App).
			Line("A name is 1 to 64 of a-z, 0-9, dot, underscore and hyphen.").Do("give one: --app acme")
	}
	if len(r.Channels) == 0 {
		return fault.New(fault.Usage, "a fleet needs a channel").Do("give one: --channel stable")
	}
	for i, ch := range r.Channels {
		if !manifest.ValidName(ch) {
			return fault.New(fault.Usage, "%q cannot be the name of a channel", ch).
				Line("A name is 1 to 64 of a-z, 0-9, dot, underscore and hyphen.")
		}
		if slices.Contains(r.Channels[:i], ch) {
			return fault.New(fault.Usage, "channel %q is named twice", ch)
		}
	}
	for _, role := range []struct {
		name       string
		need, have int
	}{{"root", r.RootThreshold, r.RootKeys}, {"release", r.Threshold, r.ReleaseKeys}} {
		if role.need < 1 || role.have < role.need || role.have > 32 {
			return fault.New(fault.Usage, "%d of %d %s keys cannot be", role.need, role.have, role.name).
				Line("At least 1 must sign, and at most as many as there are, which is 32 or less.")
		}
	}
	if r.Beacon && len(r.Channels) > 1 {
		return fault.New(fault.Usage, "a beacon key belongs to one channel, and %d are to be made", len(r.Channels)).
			Do("leave --beacon out, and give each channel its own: shoal channel set CHANNEL --beacon KEY.pub --stale-after 48h")
	}
	if r.MaxValidity < time.Second || r.RootValidity < time.Second ||
		r.MaxValidity%time.Second != 0 || r.RootValidity%time.Second != 0 {
		return fault.New(fault.Usage, "a validity is whole seconds, and more than none")
	}
	if r.PublicURL != "" {
		if _, err := parsePublicURL(r.PublicURL); err != nil {
			return err
		}
		if !r.NoFleetKey && strings.HasPrefix(r.PublicURL, "http://") {
			return fault.New(fault.Usage, "--public-url %q would be answered over https only", r.PublicURL).
				Line("A fleet with a key is served with a certificate of its own.").
				Do("--public-url %q", "https"+strings.TrimPrefix(r.PublicURL, "http")).
				Do("or make an open fleet, whose releases strangers can read: --no-fleet-key")
		}
	}
	return nil
}

func (r *InitRequest) defaults() {
	orDefault := func(n *int, def int) {
		if *n == 0 {
			*n = def
		}
	}
	orDefault(&r.RootKeys, 2)
	orDefault(&r.RootThreshold, 1)
	orDefault(&r.Threshold, 1)
	orDefault(&r.ReleaseKeys, r.Threshold)
	if r.MaxValidity == 0 {
		r.MaxValidity = DefaultMaxValidity
	}
	if r.RootValidity == 0 {
		r.RootValidity = DefaultRootValidity
	}
	if r.Clock == nil {
		r.Clock = time.Now
	}
}

// Init makes the keys, the first root, the repository and publisher.yaml of a new
// fleet. It never overwrites: when all of it is there already, nothing is changed and
// the result says so; when some of it is, that is an error which names what.
func Init(ctx context.Context, req InitRequest) (*InitResult, error) {
	req.defaults()
	if err := req.validate(); err != nil {
		return nil, err
	}
	res := &InitResult{
		RootNeeds: req.RootThreshold, ReleaseNeeds: req.Threshold,
		Config: req.ConfigFile, Store: req.Store,
		RootKeys:    keyFiles(req.KeyDir, "root", req.RootKeys),
		ReleaseKeys: keyFiles(req.KeyDir, "release", req.ReleaseKeys),
	}
	res.BeaconKeys = []KeyFile{}
	if req.Beacon {
		res.BeaconKeys = keyFiles(req.KeyDir, "beacon", 1)
	}
	for _, ch := range req.Channels {
		res.Channels = append(res.Channels, manifest.Channel{App: req.App, Name: ch})
	}
	if !req.NoFleetKey {
		res.FleetKey = filepath.Join(req.KeyDir, fleetKeyName)
	}
	there, missing, err := res.look()
	switch {
	case err != nil:
		return nil, err
	case len(missing) == 0:
		return res, res.fromRepository()
	case len(there) > 0:
		return nil, fault.New(fault.Usage, "part of a fleet is here already, and nothing is ever overwritten").
			Line("There already: %s.", strings.Join(there, ", ")).
			Line("Not there: %s.", strings.Join(missing, ", ")).
			Do("make the new fleet elsewhere: --dir DIR").
			Do("or, if an earlier init broke off and nothing was published, remove what is there").
			Fact("there", there).Fact("missing", missing)
	}
	return res, res.make(ctx, req)
}

// look says which of the things Init would make are there.
func (res *InitResult) look() (there, missing []string, err error) {
	paths := []string{res.Config, filepath.Join(repo.TreeDir(res.Store), filepath.FromSlash(tree.Root(1)))}
	for _, k := range res.files() {
		paths = append(paths, k.Path)
	}
	for _, path := range paths {
		switch _, err := os.Lstat(path); {
		case err == nil:
			there = append(there, path)
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, path)
		default:
			return nil, nil, fault.New(fault.Permission, "looking for %q: %w", path, err)
		}
	}
	// A fleet that is there is as it is, open or not; a key that is there alone is somebody's.
	if _, err := os.Lstat(res.FleetKey); err == nil && len(missing) > 0 {
		there = append(there, res.FleetKey)
	}
	return there, missing, nil
}

// fromRepository fills the result from a fleet that is there, if it is the one asked for.
func (res *InitResult) fromRepository() error {
	r, err := repo.Open(res.Store)
	if err != nil {
		return err
	}
	state, err := r.Read()
	if err != nil {
		return err
	}
	root := state.Trust.Root()
	for _, want := range res.Channels {
		if _, err := state.Channel(want); err != nil {
			var have []string
			for i := range root.Channels {
				have = append(have, root.Channels[i].Name().String())
			}
			return fault.New(fault.Usage, "another fleet is here already, and nothing is ever overwritten").
				Line("Asked for %s; %s has %s.", want, res.Store, list(have)).
				Do("make the new fleet elsewhere: --dir DIR")
		}
	}
	res.FleetID, res.Already = manifest.FleetID(state.Trust.Repo()), true
	if k, err := fleet.Read(res.FleetKey); err == nil {
		res.FleetKeyID = k.IDs()[0]
	} else {
		res.FleetKey = ""
	}
	for _, files := range [][]KeyFile{res.RootKeys, res.ReleaseKeys, res.BeaconKeys} {
		for i := range files {
			if pub, err := keys.ReadPublic(files[i].Path + ".pub"); err == nil {
				files[i].ID = pub.ID()
			}
		}
	}
	return nil
}

func (res *InitResult) make(ctx context.Context, req InitRequest) error {
	var passphrase []byte
	if req.Passphrase != nil {
		var err error
		if passphrase, err = req.Passphrase(ctx, "the new keys of "+req.App); err != nil {
			return err
		}
	}
	res.Protected = len(passphrase) > 0

	rootKeys, err := makeKeys(req.App, res.RootKeys)
	if err != nil {
		return err
	}
	releaseKeys, err := makeKeys(req.App, res.ReleaseKeys)
	if err != nil {
		return err
	}
	beaconKeys, err := makeKeys(req.App, res.BeaconKeys)
	if err != nil {
		return err
	}
	env, err := firstRoot(ctx, req, rootKeys, releaseKeys, beaconKeys)
	if err != nil {
		return err
	}
	res.FleetID = manifest.FleetID(env.PayloadHash())

	// The keys first: a root whose keys were lost before they were written would be
	// worse than keys without a root.
	if err := os.MkdirAll(req.KeyDir, 0o700); err != nil {
		return writing(req.KeyDir, err)
	}
	for i, s := range slices.Concat(rootKeys, releaseKeys, beaconKeys) {
		path, secret := res.files()[i].Path, passphrase
		if slices.Contains(beaconKeys, s) {
			secret = nil // Serve opens it by itself, and all it can do is slow a rollout down
		}
		if err := keys.WritePrivate(path, s, secret); err != nil {
			return writing(path, err)
		}
	}
	if res.FleetKey != "" {
		k, err := fleet.Generate()
		if err == nil {
			err = k.Write(res.FleetKey)
		}
		if err != nil {
			return writing(res.FleetKey, err)
		}
		res.FleetKeyID = k.IDs()[0]
	}
	if _, err := repo.Create(req.Store, env.Marshal()); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(req.ConfigFile), 0o755); err != nil {
		return writing(filepath.Dir(req.ConfigFile), err)
	}
	if err := durable.WriteNew(req.ConfigFile, configText(req, res), 0o644); err != nil {
		return writing(req.ConfigFile, err)
	}
	return nil
}

// files are those of all keys, in the order in which they are made.
func (res *InitResult) files() []KeyFile {
	return slices.Concat(res.RootKeys, res.ReleaseKeys, res.BeaconKeys)
}

func keyFiles(dir, name string, n int) []KeyFile {
	files := make([]KeyFile, n)
	for i := range files {
		files[i].Path = filepath.Join(dir, fmt.Sprintf("%s-%d", name, i+1))
	}
	return files
}

func makeKeys(app string, files []KeyFile) ([]keys.Signer, error) {
	var made []keys.Signer
	for i := range files {
		s, err := keys.Generate(filepath.Base(files[i].Path) + "@" + app)
		if err != nil {
			return nil, fault.New(fault.IO, "making a key: %w", err)
		}
		files[i].ID = s.Public().ID()
		made = append(made, s)
	}
	return made, nil
}

// firstRoot is root version 1, signed by all root keys and opened once as an agent will.
func firstRoot(ctx context.Context, req InitRequest, rootKeys, releaseKeys, beaconKeys []keys.Signer) (*manifest.Envelope, error) {
	now := req.Clock().UTC().Truncate(time.Second)
	root := &manifest.Root{
		Version: 1, Fleet: req.App, Issued: now, Expires: now.Add(req.RootValidity),
		Root: role(req.RootThreshold, rootKeys), Keys: map[keys.ID]string{},
	}
	for _, name := range req.Channels {
		root.Channels = append(root.Channels, manifest.ChannelSpec{
			App: req.App, Channel: name, Epoch: 1,
			Release: role(req.Threshold, releaseKeys), MaxValidity: req.MaxValidity,
		})
	}
	if len(beaconKeys) > 0 {
		beacon := role(1, beaconKeys)
		root.Channels[0].Beacon, root.Channels[0].StaleAfter = &beacon, DefaultStaleAfter
	}
	for _, s := range slices.Concat(rootKeys, releaseKeys, beaconKeys) {
		root.Keys[s.Public().ID()] = s.Public().String()
	}
	payload, err := manifest.DraftRoot(root)
	if err != nil {
		return nil, err
	}
	env := manifest.NewEnvelope(manifest.TypeRoot, payload)
	for _, s := range rootKeys {
		if err := sign(ctx, env, s); err != nil {
			return nil, err
		}
	}
	if _, _, err := manifest.Pin(env.Marshal(), env.PayloadHash(), manifest.Options{Clock: req.Clock}); err != nil {
		return nil, err
	}
	return env, nil
}

func role(threshold int, signers []keys.Signer) manifest.RoleSpec {
	spec := manifest.RoleSpec{Threshold: threshold}
	for _, s := range signers {
		spec.KeyIDs = append(spec.KeyIDs, s.Public().ID())
	}
	return spec
}

func sign(ctx context.Context, env *manifest.Envelope, s keys.Signer) error {
	sig, err := s.Sign(ctx, string(env.Type), env.Payload)
	if err != nil {
		return fault.New(codeOr(err, fault.IO), "signing with %s: %w", keyName(s.Public()), err).
			Line("Nothing was published.")
	}
	return env.Attach(keys.Entry{KeyID: s.Public().ID(), Sig: sig})
}

// configText is publisher.yaml. Paths are quoted as JSON is, which YAML reads.
func configText(req InitRequest, res *InitResult) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# What shoal publish and shoal serve do here. Every key: shoal config example publisher\napp: %s\nkeys:\n  release:\n", req.App)
	// A path beside the file is written as it is seen from there, so that the whole
	// directory can be moved.
	beside := func(path string) string {
		if rel, err := filepath.Rel(filepath.Dir(req.ConfigFile), path); err == nil && filepath.IsLocal(rel) {
			path = rel
		}
		return filepath.ToSlash(path)
	}
	for _, k := range res.ReleaseKeys {
		fmt.Fprintf(&b, "  - %q\n", "file:"+beside(k.Path))
	}
	for _, k := range res.BeaconKeys {
		fmt.Fprintf(&b, "  beacon: %q\n", "file:"+beside(k.Path))
	}
	b.WriteString("channels:\n")
	for _, ch := range req.Channels {
		fmt.Fprintf(&b, "- {name: %q, expires: %s}\n", ch, hours(req.MaxValidity))
	}
	fmt.Fprintf(&b, "serve:\n  listen: %q\n  swarm: %q\n", DefaultListen, DefaultSwarm)
	if req.PublicURL != "" {
		fmt.Fprintf(&b, "  public_url: %q\n", req.PublicURL)
	} else {
		scheme := "https"
		if res.FleetKey == "" {
			scheme = "http"
		}
		fmt.Fprintf(&b, "  # How machines reach this publisher; join links need it.\n  # public_url: \"%s://updates.acme.lan:7800\"\n", scheme)
	}
	if res.FleetKey != "" {
		fmt.Fprintf(&b, "fleet_key_file: %q\n", beside(res.FleetKey))
	}
	fmt.Fprintf(&b, "store: %q\n", beside(req.Store))
	return []byte(b.String())
}

// hours prints a whole number of seconds as configuration files have durations.
func hours(d time.Duration) string {
	switch day := 24 * time.Hour; {
	case d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

func writing(path string, err error) error {
	code := fault.IO
	switch {
	case errors.Is(err, fs.ErrExist):
		code = fault.Usage
	case errors.Is(err, fs.ErrPermission):
		code = fault.Permission
	}
	return fault.New(codeOr(err, code), "writing %q: %w", path, err)
}

// codeOr is the code err carries, or def when it carries none.
func codeOr(err error, def fault.Code) fault.Code {
	if c := fault.CodeOf(err); c != fault.IO {
		return c
	}
	return def
}

// keyName is a key as people know it: its comment, else its fingerprint.
func keyName(k keys.PublicKey) string {
	if c := k.Comment(); c != "" {
		return c
	}
	return string(k.ID())
}

// list joins words for a sentence.
func list(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}
