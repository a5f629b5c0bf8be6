package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// patience is how long people wait for an answer.
const patience = 8 * time.Second

// ask does something at a manager in the name of a person, who waits while the
// plan goes on.
func (s *sim) ask(h *host, do func(context.Context, *process) error) {
	p := h.running
	if p == nil {
		return
	}
	s.people.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := do(ctx, p); err != nil {
			s.say("  %s said: %v", h.name, err)
		}
	})
}

// write asks for a token, which must be there for ever once the manager says
// so.
func (s *sim) write(h *host, id string) {
	s.ask(h, func(ctx context.Context, p *process) error {
		token := swarm.UserToken{ID: id, Name: "ana", Role: swarm.UserViewer, Hash: make([]byte, 32), Created: time.Now()}
		index, err := p.store.Propose(ctx, store.Command{At: time.Now(), By: "ana", PutToken: &token})
		if err == nil {
			s.say("  %s wrote %s at %d", h.name, id, index)
			s.rules.acknowledged(id, index)
		}
		return err
	})
}

// read asks what there is, which must be all that was acknowledged before.
func (s *sim) read(h *host) {
	acks := s.rules.acked()
	s.ask(h, func(ctx context.Context, p *process) error {
		err := p.store.Confirm(ctx)
		if err == nil {
			s.rules.has(h.name, p.store.View(), acks, true)
		}
		return err
	})
}

// drawAct draws something that a person does.
func (s *sim) drawAct(at time.Duration, add func(time.Duration, string, func())) {
	host, node := s.hosts[s.chance.IntN(len(s.hosts))], s.nodes[s.chance.IntN(len(s.nodes))]
	name := stackNames()[s.chance.IntN(2)]
	act := func(what string, do func(context.Context, *process) error) {
		add(at, fmt.Sprintf("%s is asked to %s", host.name, what), func() { s.ask(host, do) })
	}
	switch s.chance.IntN(9) {
	case 0, 1, 2, 3:
		kind := []string{imageGood, imageGood, imageGood, imageSlow, imageCrash, imageSick, imageGone}[s.chance.IntN(7)]
		stack := draft(name, fmt.Sprintf("%s:%d", kind, at.Milliseconds()), 1+s.chance.IntN(2), 1+s.chance.IntN(4))
		act(fmt.Sprintf("take %s %s x%d", name, kind, stack.Services[0].Replicas), func(ctx context.Context, p *process) error {
			return s.commit(ctx, p, stack, fmt.Sprint("c", at.Milliseconds()))
		})
	case 4:
		n := s.chance.IntN(5)
		act(fmt.Sprintf("scale %s to %d", name, n), func(ctx context.Context, p *process) error {
			return p.leader.Scale(ctx, name, map[string]int{"web": n}, "ana")
		})
	case 5:
		act("roll back "+string(name), func(ctx context.Context, p *process) error {
			_, err := p.leader.Rollback(ctx, name, "", "ana")
			return err
		})
	case 6:
		act("restart "+string(name), func(ctx context.Context, p *process) error {
			return p.leader.Restart(ctx, name, []string{"web"}, "ana")
		})
	case 7, 8:
		act("drain "+string(node.id), func(ctx context.Context, p *process) error {
			return p.leader.SetAvailability(ctx, node.id, swarm.NodeDrained, "ana")
		})
		add(at+s.lasting(), host.name+" is asked to activate "+string(node.id), func() {
			s.ask(host, func(ctx context.Context, p *process) error {
				return p.leader.SetAvailability(ctx, node.id, swarm.NodeActive, "ana")
			})
		})
	}
}
