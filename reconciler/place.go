package reconciler

import (
	"slices"
	"strings"

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

// meets evaluates one constraint, "key==value" or "key!=value".
func meets(node *swarm.Node, constraint string) bool {
	equal := true
	key, value, ok := strings.Cut(constraint, "==")
	if !ok {
		equal = false
		if key, value, ok = strings.Cut(constraint, "!="); !ok {
			return false
		}
	}

	actual, ok := attribute(node, strings.TrimSpace(key))
	return ok && strings.EqualFold(actual, strings.TrimSpace(value)) == equal
}

// attribute returns what a constraint's key says of the node. A label that the
// node lacks is empty.
func attribute(node *swarm.Node, key string) (string, bool) {
	switch key {
	case "node.id":
		return string(node.ID), true
	case "node.hostname":
		return node.Description.Hostname, true
	case "node.role":
		return node.Role, true
	case "node.platform.os":
		return node.Description.OS, true
	case "node.platform.arch":
		return node.Description.Arch, true
	}
	if label, ok := strings.CutPrefix(key, "node.labels."); ok {
		return node.Labels[label], true
	}
	if label, ok := strings.CutPrefix(key, "engine.labels."); ok {
		return node.Description.Labels[label], true
	}
	return "", false
}
