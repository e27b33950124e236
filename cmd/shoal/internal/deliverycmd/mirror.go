package deliverycmd

import (
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"shoal/cmd/shoal/internal/cli"
	"shoal/cmd/shoal/internal/publishing"
	"shoal/cmd/shoal/internal/words"
	"shoal/publisher/mirror"
	"shoal/publisher/mirror/bucket"
	"shoal/publisher/repo"
)

// Mirror is shoal mirror.
func Mirror(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mirror",
		Short: "Put what is published where any web server serves it",
		Example: `  shoal mirror push /srv/mirror
  shoal mirror push s3://updates/acme --prune`,
	}
	cmd.AddCommand(newMirrorPushCmd(c))
	return cmd
}

func newMirrorPushCmd(c *cli.CLI) *cobra.Command {
	var (
		o        mirror.Options
		endpoint string
	)
	cmd := &cobra.Command{
		Use:   "push DIR|s3://BUCKET/PREFIX",
		Short: "Bring a mirror up to what the repository offers",
		Example: `  shoal mirror push /srv/mirror
  shoal mirror push s3://updates/acme --endpoint https://s3.example:9000 --prune`,
		Long: `What the channels offer now is copied, documents and payloads, as static files: with a web server in
front of DIR it is a complete source, for machines (sources.mirrors) and for stock BitTorrent clients. A
manifest comes after all that it names, and every file at once, so readers need not be stopped. Pushing
again changes nothing.

A mirror that holds something newer, or something else under the same number, is refused: the repository
may have been put back from a backup. A mirror needs no trust, and keeps no secret: whoever reaches its
web server can read every release, although a fleet may have a key.

A bucket of an S3-compatible store is a mirror where machines can read it without credentials. Those for
pushing come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or from the file
AWS_SHARED_CREDENTIALS_FILE and the profile AWS_PROFILE in it; the region is AWS_REGION.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := publishing.Config(c)
			if err != nil {
				return err
			}
			r, err := repo.Open(cfg.Store)
			if err != nil {
				return err
			}
			to, err := place(args[0], endpoint, c.Getenv)
			if err != nil {
				return err
			}
			ctx, cancel := c.WithTimeout(cmd.Context(), 0)
			defer cancel()
			report, err := mirror.Push(ctx, r, to, o)
			if err != nil {
				return err
			}
			for _, note := range report.Notes {
				c.Warn("%s", note)
			}
			switch b, ok := to.(*bucket.Bucket); {
			case ok && !b.Public(ctx):
				c.Warn("this bucket answers nobody without credentials: machines cannot read it until its policy, or a server in front of it, lets them")
			case ok && cfg.FleetKeyFile != "":
				c.Warn("this bucket is public: who reaches it can read every release, although the fleet has a key")
			case cfg.FleetKeyFile != "":
				c.Warn("this mirror is as private as its web server: who reaches it can read every release, although the fleet has a key")
			}
			return c.Print("shoal.mirror/v1", report, func(w io.Writer) { writeMirror(w, report) })
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&endpoint, "endpoint", "", "`URL` of the bucket's store (AWS_ENDPOINT_URL, or Amazon's)")
	fl.BoolVar(&o.Prune, "prune", false, "remove what no channel offers any more; machines may still be fetching it")
	fl.BoolVar(&o.Verify, "verify", false, "read the payloads that are there too, and replace what is not as signed")
	return cmd
}

// place is the mirror that a person names.
func place(name, endpoint string, getenv func(string) string) (mirror.Place, error) {
	switch {
	case bucket.Named(name):
		if endpoint == "" {
			endpoint = getenv("AWS_ENDPOINT_URL")
		}
		return bucket.Open(name, bucket.Config{
			Endpoint: endpoint, Region: getenv("AWS_REGION"),
			AccessKey: getenv("AWS_ACCESS_KEY_ID"), SecretKey: getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: getenv("AWS_SESSION_TOKEN"),
			File: getenv("AWS_SHARED_CREDENTIALS_FILE"), Profile: getenv("AWS_PROFILE"),
		})
	case strings.Contains(name, "://"):
		return nil, cli.Usagef("%q is neither a directory nor a bucket", name).
			Do("shoal mirror push DIR, of a directory that a web server serves, or s3://BUCKET/PREFIX")
	case endpoint != "":
		return nil, cli.Usagef("--endpoint is for buckets, and %q is a directory", name)
	}
	return mirror.Dir(name), nil
}

func writeMirror(w io.Writer, r *mirror.Report) {
	for _, ch := range r.Channels {
		word := "as before"
		if ch.Changed {
			word = "new there"
		}
		fmt.Fprintf(w, "%s %s (%d.%d) %s\n", ch.Channel, ch.Version, ch.Epoch, ch.Sequence, word)
	}
	if len(r.Channels) == 0 {
		fmt.Fprintln(w, "nothing is published yet")
	}
	fmt.Fprintf(w, "%s: %d files written (%s), %d there already", words.Printable(r.Mirror), r.Written, humanize.IBytes(uint64(r.Bytes)), r.Kept)
	if r.Removed > 0 {
		fmt.Fprintf(w, ", %d removed", r.Removed)
	}
	compared := words.Printable(r.Mirror)
	if bucket.Named(r.Mirror) {
		compared = "URL"
	}
	fmt.Fprintf(w, "\nMachines ask it when it is in their sources.mirrors: [ URL ]; publish compares with it when it is in mirrors: [ %s ]\n", compared)
}
