// Package schema holds the JSON Schema of each document: its members and their shapes.
// What a schema cannot say, such as which keys must sign, is for the documentation.
package schema

import (
	"embed"
	"slices"
	"strings"

	"shoal/internal/fault"
)

//go:embed *.json
var schemas embed.FS

// Names are the documents that have a JSON Schema.
func Names() []string {
	entries, err := schemas.ReadDir(".")
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".json"))
	}
	return names
}

// Document is the JSON Schema of a document: its members and their shapes. Rules that span
// members are not in it.
func Document(name string) ([]byte, error) {
	if !slices.Contains(Names(), name) {
		return nil, fault.New(fault.Usage, "there is no schema %q", name).Line("There are %s.", strings.Join(Names(), ", "))
	}
	return schemas.ReadFile(name + ".json")
}
