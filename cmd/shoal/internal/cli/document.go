package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"strings"

	"shoal/internal/durable"
	"shoal/internal/fault"
)

// PrintDocument is the result of a command that makes a document. The document goes to
// --out, or to standard output as it is; v and text tell about it. In the machine-readable
// forms without --out it is the member "document" of the result.
func (c *CLI) PrintDocument(schema string, v any, doc []byte, out string, text func(io.Writer)) error {
	if out != "" {
		if err := durable.WriteFile(out, doc, 0o644); err != nil {
			if errors.Is(err, fs.ErrPermission) {
				return fault.New(fault.Permission, "%w", err)
			}
			return fault.New(fault.IO, "%w", err)
		}
		return c.Print(schema, v, text)
	}
	if !c.ForPeople() {
		raw, err := marshal(v)
		if err != nil {
			return err
		}
		whole, err := marshal(string(doc))
		if err != nil {
			return err
		}
		raw = append(bytes.TrimSuffix(raw, []byte("}")), `,"document":`...)
		return c.Print(schema, json.RawMessage(append(append(raw, whole...), '}')), text)
	}
	var talk bytes.Buffer
	text(&talk)
	if talk.Len() > 0 {
		c.Say("%s", strings.TrimRight(talk.String(), "\n"))
	}
	return c.Print(schema, v, func(w io.Writer) { w.Write(doc) })
}
