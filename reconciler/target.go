package reconciler

import (
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// Target returns what the stack goes to now: each service as Advance wants it,
// and those that must go but are still there as they were. Replicas are those
// of the content, not of an operator's scale. It is never nil.
func Target(view View) *swarm.Stack {
	s := newStep(view, view.Record.Rollout.Began)
	if !view.Record.Removing && s.corrupt() == "" {
		s.begin()
	}

	target := &swarm.Stack{Name: view.Record.Name}
	for _, sv := range s.services {
		switch present := slices.ContainsFunc(sv.all(), func(st *seat) bool { return st.any((*task).live) }); {
		case sv.want != nil && !view.Record.Removing:
			target.Services = append(target.Services, *sv.want)
		case present && sv.from != nil:
			target.Services = append(target.Services, *sv.from)
		case present && sv.to != nil:
			target.Services = append(target.Services, *sv.to)
		}
	}

	from, to := view.Healthy, s.content(s.rollout.To)
	if s.rollout.Phase == swarm.PhaseRolledBack || to == nil {
		to = from
	}
	if from == nil {
		from = to
	}
	if to != nil {
		target.Networks = union(to.Networks, from.Networks, func(n swarm.Network) string { return n.Name })
		target.Volumes = union(to.Volumes, from.Volumes, func(v swarm.Volume) string { return v.Name })
	}
	return target
}
