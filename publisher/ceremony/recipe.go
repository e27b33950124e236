package ceremony

import (
	"fmt"
	"path/filepath"
	"strings"

	"shoal/internal/fault"
	"shoal/manifest"
	"shoal/manifest/tree"
)

// Recipe is a bash script that checks one release of the repository by hand, with jq,
// base64, sha256sum and ssh-keygen, and no shoal. It starts from the fleet id, follows
// the roots, and ends at the files. version is a release's version or EPOCH.SEQUENCE.
func (f *Fleet) Recipe(ch manifest.Channel, version string) (string, error) {
	if f.repo == nil {
		return "", fault.New(fault.Usage, "a recipe needs the publisher's repository")
	}
	all, err := f.releases(ch)
	if err != nil {
		return "", err
	}
	for i, r := range all {
		if r.m.Release.Version != version && r.m.Order().String() != version {
			continue
		}
		if spec, _ := f.Root.Channel(ch); r.m.Epoch < spec.Epoch {
			return "", fault.New(fault.Policy, "%s %s (%s) is of an epoch that root has ended", ch, r.m.Release.Version, r.m.Order()).
				Line("What was signed there counts for nothing, however good the signatures are.").Do("shoal release list")
		}
		path := r.path
		if i == 0 { // the channel's own
			path = filepath.Join(f.repo.Tree(), filepath.FromSlash(tree.Manifest(ch)))
		}
		dir, err := filepath.Abs(f.repo.Tree())
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return "", fault.New(fault.IO, "finding the repository: %w", err)
		}
		return f.script(ch, &r, dir, path), nil
	}
	return "", fault.New(fault.NotFound, "%s has no release %q that its keys have signed", ch, version).Do("shoal release list")
}

func (f *Fleet) script(ch manifest.Channel, r *release, dir, path string) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("#!/bin/bash")
	p("# %s %s (%s), checked by hand.", ch, r.m.Release.Version, r.m.Order())
	p("# The fleet id is the one thing to know from elsewhere: compare it with what you were given.")
	p("set -euo pipefail")
	p("fleet=%s", f.ID)
	p("tree=%s", quote(dir))
	p("manifest=%s", quote(path))
	b.WriteString(recipeHead)
	p("# The fleet is named by the hash of its first root.")
	p(`payload "$tree/%s" > root-1`, tree.Root(1))
	p(`echo "$fleet  root-1" | sha256sum -c`)
	p(`signed "$tree/%s" %s root-1 .root`, tree.Root(1), manifest.TypeRoot)
	for v := int64(2); v <= r.root; v++ {
		p("\n# Root %d is signed by the keys of root %d and by its own, and names root %d.", v, v-1, v-1)
		p(`payload "$tree/%s" > root-%d`, tree.Root(v), v)
		p(`jq -e --arg id "sha256:$fleet" --arg prev "sha256:$(hash root-%d)" '.version == %d and .id == $id and .prev == $prev' root-%d > /dev/null`, v-1, v, v)
		p(`signed "$tree/%s" %s root-%d .root`, tree.Root(v), manifest.TypeRoot, v-1)
		p(`signed "$tree/%s" %s root-%d .root`, tree.Root(v), manifest.TypeRoot, v)
	}
	channel := fmt.Sprintf(`(.channels[] | select(.app == "%s" and .channel == "%s"))`, ch.App, ch.Name)
	p("\n# The manifest is for this fleet and channel, and signed by the keys that root %d gives it.", r.root)
	p(`payload "$manifest" > manifest`)
	p(`jq -e --arg repo "sha256:$fleet" --argjson epoch "$(jq '%s.epoch' root-%d)" \`, channel, r.root)
	p(`  '.repo == $repo and .app == "%s" and .channel == "%s" and .epoch == $epoch' manifest > /dev/null`, ch.App, ch.Name)
	p(`signed "$manifest" %s root-%d '%s.release'`, manifest.TypeManifest, r.root, channel)
	p(`jq -r '"%s \(.release.version), number \(.epoch).\(.sequence), believed until \(.expires)"' manifest`, ch)
	p("\n# The files are the signed ones. Yours too? Compare its sha256sum with these.")
	p(`jq -r '.artifacts[] | "\(.sha256)  \(.os)/\(.arch)"' manifest`)
	p(`jq -r '.attachments[]? | "\(.sha256)  \(.name)"' manifest`)
	p(`jq -r --arg tree "$tree" '.artifacts[], .attachments[]? | "\(.sha256)  \($tree)/data/\(.sha256)"' manifest | sha256sum -c`)
	return b.String()
}

const recipeHead = `work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# payload ENVELOPE: the very bytes that were signed.
payload() { jq -r .payload "$1" | base64 -d; }
hash() { sha256sum "$1" | cut -d ' ' -f 1; }

# signed ENVELOPE TYPE ROOT ROLE: fails unless as many keys of the role have signed as it asks for.
signed() {
  payload "$1" > payload
  want=$(jq "$4.threshold" "$3")
  have=0
  for id in $(jq -r "$4.keyids[]" "$3"); do
    jq -r --arg id "$id" '.signatures[] | select(.keyid == $id) | .sig' "$1" | fold -w 70 > sig
    [ -s sig ] || continue
    { echo "-----BEGIN SSH SIGNATURE-----"; cat sig; echo "-----END SSH SIGNATURE-----"; } > armoured
    jq -r --arg id "$id" '$id + " " + .keys[$id]' "$3" > allowed_signers
    if ssh-keygen -Y verify -f allowed_signers -I "$id" -n "$2" -s armoured < payload; then have=$((have + 1)); fi
  done
  echo "$2: $have of $want signatures"
  [ "$have" -ge "$want" ]
}

`

// quote is a word for a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
