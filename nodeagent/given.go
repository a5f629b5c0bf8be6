package nodeagent

import (
	"strconv"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// given tells a container which pieces of its node it was given, as Docker
// Swarm does: DOCKER_RESOURCE_GPU=GPU-1,GPU-2, or their number where they have
// no names.
func given(generic []swarm.GenericResource) []string {
	var env []string
	for _, resource := range generic {
		value := strconv.FormatInt(resource.Count, 10)
		if len(resource.Names) > 0 {
			value = strings.Join(resource.Names, ",")
		}
		env = append(env, "DOCKER_RESOURCE_"+strings.ToUpper(resource.Kind)+"="+value)
	}
	return env
}
