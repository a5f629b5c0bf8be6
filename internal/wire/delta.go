package wire

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// Delta takes an agent's assignment from index Base to Index.
type Delta struct {
	Index   uint64  `cbor:"1,keyasint,omitempty"`
	Base    uint64  `cbor:"2,keyasint,omitempty"`
	Full    bool    `cbor:"3,keyasint,omitempty"` // Changes are all there is; Base says nothing
	Changes Changes `cbor:"4,keyasint,omitempty"`
	Hash    Hash    `cbor:"5,keyasint,omitempty"` // of the assignment at Index
}

// Changes are the parts of an assignment that differ from an earlier one.
// Volumes are names only: they come and go.
type Changes struct {
	Tasks        []swarm.AssignedTask    `cbor:"1,keyasint,omitempty"` // new or changed, by id
	GoneTasks    []swarm.TaskID          `cbor:"2,keyasint,omitempty"`
	Networks     []swarm.AssignedNetwork `cbor:"3,keyasint,omitempty"`
	GoneNetworks []swarm.NetworkID       `cbor:"4,keyasint,omitempty"`
	Services     []swarm.AssignedService `cbor:"5,keyasint,omitempty"`
	GoneServices []swarm.ServiceID       `cbor:"6,keyasint,omitempty"`
	Volumes      []swarm.VolumeID        `cbor:"7,keyasint,omitempty"`
	GoneVolumes  []swarm.VolumeID        `cbor:"8,keyasint,omitempty"`
}

// Empty reports whether nothing differs.
func (c Changes) Empty() bool { return reflect.ValueOf(c).IsZero() }

// Held is an assignment as somebody holds it. The zero Held holds none.
type Held struct {
	Index      uint64           `cbor:"1,keyasint,omitempty"`
	Hash       Hash             `cbor:"2,keyasint,omitempty"`
	Assignment swarm.Assignment `cbor:"3,keyasint,omitempty"`
}

// Why a delta is refused.
var (
	ErrMisfit = errors.New("delta does not fit the assignment that is held")        // ask for a full one
	ErrOld    = errors.New("assignment is older than the one that this node holds") // ask another manager
)

// Diff returns what takes old to new, and what to add to old's Hash for new's.
// The parts of both are sorted by id, as in every Assignment.
func Diff(old, new swarm.Assignment) (Changes, Hash) {
	var (
		c                                  Changes
		tasks, networks, services, volumes Hash
	)
	c.Tasks, c.GoneTasks, tasks = diff(kindTask, old.Tasks, new.Tasks, taskID)
	c.Networks, c.GoneNetworks, networks = diff(kindNetwork, old.Networks, new.Networks, networkID)
	c.Services, c.GoneServices, services = diff(kindService, old.Services, new.Services, serviceID)
	c.Volumes, c.GoneVolumes, volumes = diff(kindVolume, old.Volumes, new.Volumes, volumeID)
	return c, tasks + networks + services + volumes
}

// Everything returns the delta that replaces whatever is held.
func Everything(index uint64, a swarm.Assignment) Delta {
	changes, hash := Diff(swarm.Assignment{}, a)
	return Delta{Index: index, Full: true, Changes: changes, Hash: hash}
}

// Apply returns what is held after the delta. It hashes the changes alone, and
// leaves held as it is. Errors: ErrOld, ErrMisfit.
func Apply(held Held, d Delta) (Held, error) {
	if d.Index < held.Index {
		return held, fmt.Errorf("apply delta of index %d to %d: %w", d.Index, held.Index, ErrOld)
	}
	if d.Full {
		held = Held{}
	} else if d.Base != held.Index {
		return held, fmt.Errorf("apply delta from index %d to %d: %w", d.Base, held.Index, ErrMisfit)
	}

	next := Held{Index: d.Index, Hash: held.Hash}
	had, c := held.Assignment, d.Changes
	next.Assignment.Tasks = patch(&next.Hash, kindTask, had.Tasks, c.Tasks, c.GoneTasks, taskID)
	next.Assignment.Networks = patch(&next.Hash, kindNetwork, had.Networks, c.Networks, c.GoneNetworks, networkID)
	next.Assignment.Services = patch(&next.Hash, kindService, had.Services, c.Services, c.GoneServices, serviceID)
	next.Assignment.Volumes = patch(&next.Hash, kindVolume, had.Volumes, c.Volumes, c.GoneVolumes, volumeID)

	if next.Hash != d.Hash {
		return held, fmt.Errorf("apply delta of index %d: hash is %x, want %x: %w", d.Index, next.Hash, d.Hash, ErrMisfit)
	}
	return next, nil
}

func taskID(t swarm.AssignedTask) swarm.TaskID          { return t.ID }
func networkID(n swarm.AssignedNetwork) swarm.NetworkID { return n.ID }
func serviceID(s swarm.AssignedService) swarm.ServiceID { return s.ID }
func volumeID(v swarm.VolumeID) swarm.VolumeID          { return v }

// diff walks two sorted lists side by side.
func diff[T any, K cmp.Ordered](kind byte, old, new []T, id func(T) K) (put []T, gone []K, shift Hash) {
	for len(old) > 0 || len(new) > 0 {
		switch {
		case len(new) == 0 || len(old) > 0 && id(old[0]) < id(new[0]):
			gone = append(gone, id(old[0]))
			shift -= hashOf(kind, old[0])
			old = old[1:]

		case len(old) == 0 || id(new[0]) < id(old[0]):
			put = append(put, new[0])
			shift += hashOf(kind, new[0])
			new = new[1:]

		default:
			if !reflect.DeepEqual(old[0], new[0]) {
				put = append(put, new[0])
				shift += hashOf(kind, new[0]) - hashOf(kind, old[0])
			}
			old, new = old[1:], new[1:]
		}
	}
	return put, gone, shift
}

// patch merges put into old, leaves gone out, and moves hash by both. It gives
// a new list, or old itself where nothing changes.
func patch[T any, K cmp.Ordered](hash *Hash, kind byte, old, put []T, gone []K, id func(T) K) []T {
	if len(put) == 0 && len(gone) == 0 {
		return old
	}
	byID := func(a, b T) int { return cmp.Compare(id(a), id(b)) }
	put = slices.SortedFunc(slices.Values(put), byID)
	gone = slices.Sorted(slices.Values(gone))

	out := make([]T, 0, len(old)+len(put))
	for _, was := range old {
		for len(put) > 0 && id(put[0]) < id(was) {
			*hash += hashOf(kind, put[0])
			out, put = append(out, put[0]), put[1:]
		}
		for len(gone) > 0 && gone[0] < id(was) {
			gone = gone[1:]
		}

		switch {
		case len(put) > 0 && id(put[0]) == id(was):
			*hash += hashOf(kind, put[0]) - hashOf(kind, was)
			out, put = append(out, put[0]), put[1:]
		case len(gone) > 0 && gone[0] == id(was):
			*hash -= hashOf(kind, was)
		default:
			out = append(out, was)
		}
	}
	for _, p := range put {
		*hash += hashOf(kind, p)
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
