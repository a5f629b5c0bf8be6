// Package swarm holds the nouns of gitswarm: what a cluster is asked to run
// and what it is running. It decides nothing and touches nothing; every other
// package is a verb over these types.
//
// The cbor tags give each field the integer it has in the raft log, on the
// wire and in hashed specs. A number is never reused and a field is never
// renumbered: an absent field equals its zero value, so a newer build hashes
// an older spec to the same digest.
package swarm

import (
	"strconv"
	"strings"
)

// SourceID names a Source.
type SourceID string

// StackName names a Stack within the cluster.
type StackName string

// NodeID names a Node; it is random and outlives the node's hostname.
type NodeID string

// TaskID names a Task, written "shop/web.1.k3x9q2": stack, service, slot, chance.
type TaskID string

// Digest names bytes by their content: "sha256:<hex>", or "hmac-sha256:<hex>"
// (keyed by the cluster) for secrets, so that a digest gives no secret away.
type Digest string

// Revision names one commit of one branch, written "main@sha1:1f0c…".
type Revision string

// NewRevision writes the Revision of a commit of a branch.
func NewRevision(branch, commit string) Revision { return Revision(branch + "@sha1:" + commit) }

// Branch returns the part before "@".
func (r Revision) Branch() string {
	branch, _, _ := strings.Cut(string(r), "@")
	return branch
}

// Commit returns the full commit id, or "" for the zero Revision.
func (r Revision) Commit() string {
	_, commit, _ := strings.Cut(string(r), "@sha1:")
	return commit
}

// Short is the form for people: "main@3f2c91a".
func (r Revision) Short() string {
	commit := r.Commit()
	if len(commit) > 7 {
		commit = commit[:7]
	}
	if commit == "" {
		return string(r)
	}
	return r.Branch() + "@" + commit
}

// ServiceID names a Service within the cluster, written "shop/web".
type ServiceID string

// NewServiceID names the service of a stack.
func NewServiceID(stack StackName, service string) ServiceID {
	return ServiceID(string(stack) + "/" + service)
}

// Stack returns the part before "/".
func (id ServiceID) Stack() StackName {
	stack, _, _ := strings.Cut(string(id), "/")
	return StackName(stack)
}

// Name returns the part after "/".
func (id ServiceID) Name() string {
	_, name, _ := strings.Cut(string(id), "/")
	return name
}

// NetworkID names a network within the cluster, written "shop/default".
type NetworkID string

// NewNetworkID names the network of a stack: its own, or another's that is
// written "shop/default".
func NewNetworkID(stack StackName, network string) NetworkID {
	if strings.Contains(network, "/") {
		return NetworkID(network)
	}
	return NetworkID(string(stack) + "/" + network)
}

// VolumeID names a volume within the cluster, written "shop/data".
type VolumeID string

// NewVolumeID names the volume of a stack: its own, or another's that is
// written "shop/data".
func NewVolumeID(stack StackName, volume string) VolumeID {
	if strings.Contains(volume, "/") {
		return VolumeID(volume)
	}
	return VolumeID(string(stack) + "/" + volume)
}

// SlotName is the form for people: "web.1" for a replica, "web" for slot 0.
func SlotName(service string, slot int) string {
	if slot == 0 {
		return service
	}
	return service + "." + strconv.Itoa(slot)
}
