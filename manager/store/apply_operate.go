package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// operate writes an operator's word on a stack.
func (ch *change) operate(o Operate) error {
	if o.Approve != "" {
		return ch.approve(o.Approve)
	}
	record, ok := get[swarm.StackRecord](ch.txn, tableStacks, string(o.Stack))
	if !ok {
		return fmt.Errorf("stack %q: %w: `gitswarm status` lists the stacks", o.Stack, ErrNotFound)
	}

	said, err := ch.say(&record, o)
	if err != nil {
		return fmt.Errorf("stack %q: %w", o.Stack, err)
	}
	ch.record(record)
	ch.event(swarm.Event{Kind: "operator", Stack: o.Stack, Revision: record.Accepted.Revision, Text: said + ch.byWhom()})
	return nil
}

// say does to the record what the operator wants and returns the words for it.
func (ch *change) say(record *swarm.StackRecord, o Operate) (string, error) {
	switch {
	case o.Suspend != nil:
		record.Suspended = *o.Suspend
		if *o.Suspend == "" {
			return "resumed", nil
		}
		return "suspended (" + *o.Suspend + ")", nil
	case len(o.Scale) > 0:
		return scale(record, o.Scale)
	case len(o.Restart) > 0:
		return restart(record, o.Restart), nil
	case o.Retry:
		return ch.retry(record)
	case o.Rollback != nil:
		return ch.rollback(record, *o.Rollback)
	case o.Accept != nil:
		return redeploy(record, *o.Accept)
	case o.Rebalance:
		record.Rebalance = true
		return "asked to be rebalanced", nil
	}
	return "", errors.New("operate: nothing is asked")
}

func scale(record *swarm.StackRecord, replicas map[string]int) (string, error) {
	next := maps.Clone(record.Scale)
	if next == nil {
		next = map[string]int{}
	}
	var words []string
	for _, service := range slices.Sorted(maps.Keys(replicas)) {
		n := replicas[service]
		if n < 0 {
			return "", fmt.Errorf("scale %s to %d: it cannot be less than 0", service, n)
		}
		next[service] = n
		words = append(words, fmt.Sprintf("%s to %d", service, n))
	}
	record.Scale = next
	return "scaled " + strings.Join(words, ", "), nil
}

func restart(record *swarm.StackRecord, services []string) string {
	next := maps.Clone(record.Generation)
	if next == nil {
		next = map[string]uint64{}
	}
	for _, service := range services {
		next[service]++
	}
	record.Generation = next
	return "restarted " + strings.Join(services, ", ")
}

// retry forgets that content failed, and goes for the newest commit again. A
// commit that a rule, a person or the loader holds back stays where it is.
func (ch *change) retry(record *swarm.StackRecord) (string, error) {
	if p := record.Problem; p != nil && p.Kind != swarm.ProblemQuarantine && p.Kind != swarm.ProblemWaiting {
		return "", fmt.Errorf("retry does not help: %s", p.Text)
	}
	head := record.Head
	if head.Content == "" {
		head = record.Accepted
	}
	if head.Content == "" {
		return "", errors.New("retry: no commit of it was ever loaded")
	}
	release(record, record.Accepted.Content)
	release(record, head.Content)
	ch.accept(record, head)
	return "retried " + head.Revision.Short(), nil
}

// rollback accepts earlier content and quarantines what was accepted, so that
// it does not come back by itself.
func (ch *change) rollback(record *swarm.StackRecord, to swarm.Rendered) (string, error) {
	if to.Content == "" {
		return "", errors.New("roll back: no content is named")
	}
	from := record.Accepted
	release(record, to.Content)
	if from.Content != "" && from.Content != to.Content {
		quarantine(record, swarm.Quarantined{
			Content: from.Content, Revision: from.Revision, At: ch.now, Why: "rolled back" + ch.byWhom(),
		})
	}
	record.Accepted, record.Removing = to, false
	if record.Problem == nil && record.Head.Content != to.Content {
		record.Problem = &swarm.Problem{
			Kind: swarm.ProblemQuarantine, Since: ch.now,
			Text: "rolled back" + ch.byWhom() + "; `gitswarm retry " + string(record.Name) + "` goes for " + record.Head.Revision.Short() + " again",
		}
	}
	return "rolled back to " + to.Revision.Short(), nil
}

// redeploy accepts the same commit, resolved anew.
func redeploy(record *swarm.StackRecord, again swarm.Rendered) (string, error) {
	if again.Content == "" {
		return "", errors.New("redeploy: no content is named")
	}
	if record.Accepted.Revision != again.Revision {
		return "", fmt.Errorf("redeploy %s: %s was accepted meanwhile; redeploy that", again.Revision.Short(), record.Accepted.Revision.Short())
	}
	record.Accepted = again
	if record.Head.Revision == again.Revision {
		record.Head, record.Problem = again, nil
	}
	return "redeployed " + again.Revision.Short(), nil
}

// approve lets every stack go on whose problem names that plan: its Head is
// accepted, or, where the commit took the stack away, its removal begins. The
// sources of these stacks may act from now on.
func (ch *change) approve(plan string) error {
	matched := false
	for _, record := range list[swarm.StackRecord](ch.txn, tableStacks, byID) {
		if record.Problem == nil || record.Problem.Plan != plan {
			continue
		}
		matched = true
		if record.Head.Content != "" {
			ch.accept(&record, record.Head)
		} else {
			record.Problem, record.Removing = nil, true
		}
		ch.record(record)
		ch.event(swarm.Event{Kind: "operator", Stack: record.Name, Revision: record.Head.Revision, Text: "approved plan " + plan + ch.byWhom()})
		ch.approveSource(record.Source)
	}
	if !matched {
		return fmt.Errorf("approve plan %q: %w: `gitswarm status` names the plans that wait", plan, ErrNotFound)
	}
	return nil
}

func (ch *change) approveSource(id swarm.SourceID) {
	source, ok := get[swarm.Source](ch.txn, tableSources, string(id))
	if !ok || source.Approved {
		return
	}
	source.Approved = true
	put(ch.txn, tableSources, source)
	ch.marks.source(id)
}
