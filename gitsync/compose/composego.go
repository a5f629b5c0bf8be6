package compose

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
)

// loaded is what compose-go makes of a project.
type loaded struct {
	model   *types.Project
	given   map[string]map[string]any      // the services as merged, before absent keys became zeros, by name
	refused map[string]map[string]KeyClass // keys of merged services that are refused, by service and key
}

// compose merges and interpolates the project's files. Paths stay relative to
// the project's folder; env and label files are not read.
func (l *loading) compose(ctx context.Context, scratch string, env map[string]string) (loaded, error) {
	if err := l.materialise(scratch); err != nil {
		return loaded{}, err
	}
	details := types.ConfigDetails{WorkingDir: filepath.Join(scratch, filepath.FromSlash(l.project.Dir)), Environment: env}
	for _, name := range l.project.Files {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{
			Filename: filepath.Join(scratch, filepath.FromSlash(name)), Content: l.texts[name],
		})
	}
	set := []func(*loader.Options){func(o *loader.Options) {
		o.SetProjectName(l.project.Name, true)
		o.Profiles = l.project.Profiles
		o.ResolvePaths = false
		o.SkipResolveEnvironment = true
		o.SkipResolveLabels = true
		o.MaxNodeVisits = maxVisits
		o.Interpolate.Substitute = func(text string, value template.Mapping) (string, error) {
			return substitute(text, lookup(value))
		}
	}}

	dict, err := loader.LoadModelWithContext(ctx, details, set...)
	if err != nil {
		return loaded{}, err
	}
	given, refused := map[string]map[string]any{}, map[string]map[string]KeyClass{}
	services, _ := dict["services"].(map[string]any)
	for name, service := range services {
		given[name], _ = service.(map[string]any)
		delete(given[name], "container_name") // it is warned about, and would refuse replicas
		delete(given[name], "develop")
		refused[name] = l.classes.refusedIn(given[name])
	}

	model, err := loader.ModelToProject(dict, loader.ToOptions(&details, set), details)
	if err != nil {
		return loaded{}, err
	}
	if len(model.Services) == 0 {
		return loaded{}, fmt.Errorf("no service is left to run; select a profile, or remove the stack's folder")
	}
	return loaded{model: model, given: given, refused: refused}, nil
}
