package wire

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/swarm"
)

// someAssignment draws an assignment of few ids, so that two of them share parts.
func someAssignment(t *rapid.T, name string) swarm.Assignment {
	var a swarm.Assignment
	for i := range 6 {
		if rapid.Bool().Draw(t, fmt.Sprint(name, " task ", i)) {
			a.Tasks = append(a.Tasks, swarm.AssignedTask{
				ID:      swarm.TaskID(fmt.Sprintf("s/web.%d.x", i)),
				Desired: swarm.Desired(10 * rapid.IntRange(1, 5).Draw(t, "desired")),
			})
		}
		if rapid.Bool().Draw(t, fmt.Sprint(name, " service ", i)) {
			a.Services = append(a.Services, swarm.AssignedService{
				ID:       swarm.ServiceID(fmt.Sprintf("s/%d", i)),
				Backends: make([]swarm.Backend, rapid.IntRange(0, 2).Draw(t, "backends")),
			})
		}
		if rapid.Bool().Draw(t, fmt.Sprint(name, " network ", i)) {
			a.Networks = append(a.Networks, swarm.AssignedNetwork{
				ID:  swarm.NetworkID(fmt.Sprintf("s/%d", i)),
				MTU: rapid.IntRange(1400, 1402).Draw(t, "mtu"),
			})
		}
		if rapid.Bool().Draw(t, fmt.Sprint(name, " volume ", i)) {
			a.Volumes = append(a.Volumes, swarm.VolumeID(fmt.Sprintf("s/%d", i)))
		}
	}
	return a
}

func TestApplyOfDiffGivesTheNewAssignment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old, new := someAssignment(t, "old"), someAssignment(t, "new")
		held := Held{Index: 3, Hash: Sum(old), Assignment: old}

		changes, shift := Diff(old, new)
		got, err := Apply(held, Delta{Index: 4, Base: 3, Changes: changes, Hash: held.Hash + shift})
		if err != nil {
			t.Fatal(err)
		}
		if equal(t, got.Assignment, new); got.Hash != Sum(new) {
			t.Fatalf("hash is %x, want %x", got.Hash, Sum(new))
		}
		equal(t, held.Assignment, old)

		if same, zero := Diff(new, got.Assignment); !same.Empty() || zero != 0 {
			t.Fatalf("equal assignments differ: %+v", same)
		}
	})
}

func TestFullDeltaReplacesWhateverIsHeld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old, new := someAssignment(t, "old"), someAssignment(t, "new")
		got, err := Apply(Held{Index: 9, Hash: 77, Assignment: old}, Everything(9, new))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, got.Assignment, new)
	})
}

func equal(t *rapid.T, got, want swarm.Assignment) {
	t.Helper()
	a, err := codec.Encode(got)
	if err != nil {
		t.Fatal(err)
	}
	b, err := codec.Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a, b) {
		t.Fatalf("got %+v\nwant %+v", got, want)
	}
}

func TestRefusesADeltaThatDoesNotFit(t *testing.T) {
	held := Held{Index: 5}
	tests := []struct {
		name  string
		delta Delta
		want  error
	}{
		{"older", Delta{Index: 4, Base: 5}, ErrOld},
		{"older and full", Delta{Index: 4, Full: true}, ErrOld},
		{"from another base", Delta{Index: 7, Base: 6}, ErrMisfit},
		{"to another hash", Delta{Index: 7, Base: 5, Hash: 1}, ErrMisfit},
	}
	for _, test := range tests {
		got, err := Apply(held, test.delta)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: error is %v, want %v", test.name, err, test.want)
		}
		if got.Index != held.Index {
			t.Errorf("%s: the refused delta changed what is held", test.name)
		}
	}
}

// A node of 5,000 tasks, of which one changes.
func largeAssignment() swarm.Assignment {
	var a swarm.Assignment
	for i := range 5000 {
		id := swarm.TaskID(fmt.Sprintf("shop/web.%05d.k3x9q2", i))
		address := []swarm.Address{{Network: "shop/default", IP: "10.0.0.1"}}
		a.Tasks = append(a.Tasks, swarm.AssignedTask{ID: id, Service: "shop/web", Slot: i, Desired: swarm.DesiredRun, Addresses: address})
	}
	return a
}

func TestDeltaIsAsSmallAsTheChange(t *testing.T) {
	old := largeAssignment()
	new := old
	new.Tasks = slices.Clone(old.Tasks)
	new.Tasks[2500].Desired = swarm.DesiredDrain

	changes, shift := Diff(old, new)
	data, err := codec.Encode(FromManager{Delta: &Delta{Index: 2, Base: 1, Changes: changes, Hash: Sum(old) + shift}})
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 300 {
		t.Errorf("one change of 5,000 tasks takes %d bytes", len(data))
	}
}

func BenchmarkApplyOneChangeOf5000Tasks(b *testing.B) {
	held := Held{Index: 1, Assignment: largeAssignment()}
	held.Hash = Sum(held.Assignment)
	changed := held.Assignment.Tasks[2500]
	changed.Desired = swarm.DesiredDrain
	delta := Delta{Index: 2, Base: 1, Changes: Changes{Tasks: []swarm.AssignedTask{changed}}}
	delta.Hash = held.Hash + hashOf(kindTask, changed) - hashOf(kindTask, held.Assignment.Tasks[2500])
	for b.Loop() {
		if _, err := Apply(held, delta); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFullDeltaOf5000Tasks(b *testing.B) {
	a := largeAssignment()
	for b.Loop() {
		if _, err := Apply(Held{}, Everything(1, a)); err != nil {
			b.Fatal(err)
		}
	}
}
