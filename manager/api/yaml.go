package api

import (
	"fmt"
	"io"

	"github.com/danielgtaylor/huma/v2/yaml"
)

// WriteYAML writes an answer of the API, which is JSON, as YAML.
func WriteYAML(to io.Writer, answer io.Reader) error {
	if err := yaml.Convert(to, answer); err != nil {
		return fmt.Errorf("write answer as yaml: %w", err)
	}
	return nil
}
