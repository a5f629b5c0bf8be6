package reconciler

import (
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// Fits reports whether the node meets all of the service's constraints and is
// of a platform that its image exists for. Resources and ports are not looked
// at. A constraint that nobody can read is never met.
func Fits(service *swarm.Service, node *swarm.Node) bool {
	platform := node.Description.OS + "/" + node.Description.Arch
	if len(service.Image.Platforms) > 0 && platform != "/" && !slices.Contains(service.Image.Platforms, platform) {
		return false
	}
	return !slices.ContainsFunc(service.Constraints, func(c string) bool { return !meets(node, c) })
}

// takes reports whether the node takes new tasks now.
func takes(node *swarm.Node) bool {
	return node.State == swarm.NodeReady && node.Availability == swarm.NodeActive
}

// meets evaluates one constraint.
func meets(node *swarm.Node, text string) bool {
	constraint, err := swarm.ParseConstraint(text)
	return err == nil && constraint.Holds(*node)
}
