package ceremony

import (
	"embed"
	"slices"
	"strings"

	"shoal/internal/fault"
)

//go:embed schema/*.json
var schemas embed.FS

// SchemaNames are the documents that have a JSON Schema.
func SchemaNames() []string {
	entries, err := schemas.ReadDir("schema")
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".json"))
	}
	return names
}

// Schema is the JSON Schema of a document: its members and their shapes. Rules that span
// members are not in it.
func Schema(name string) ([]byte, error) {
	if !slices.Contains(SchemaNames(), name) {
		return nil, fault.New(fault.Usage, "there is no schema %q", name).Line("There are %s.", words(SchemaNames()))
	}
	return schemas.ReadFile("schema/" + name + ".json")
}
