package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-memdb"

	"github.com/gitswarm/gitswarm/swarm"
)

// Reasons why a command changes nothing.
var (
	// ErrStale voids a decision that was taken on a record that has changed.
	ErrStale = errors.New("the decision was taken on an older record")
	// ErrNotFound means that what the command speaks of is not there.
	ErrNotFound = errors.New("there is no such thing")
)

// change is one command on its way into the state. It is written only with
// what the command carries, so every manager ends up with equal state.
type change struct {
	txn   *memdb.Txn
	meta  meta
	index uint64
	now   time.Time // the cluster's
	by    string
	marks marks
}

// apply writes one command into the state, wholly or, if it returns an error,
// not at all. The index and the cluster's time move on either way.
func apply(db *memdb.MemDB, index uint64, c Command) (marks, error) {
	txn := db.Txn(true)
	defer txn.Abort() // nothing, once it was committed

	m, _ := get[meta](txn, tableMeta, tableMeta)
	m.Index = index
	if c.At.After(m.Now) {
		m.Now = c.At
	}
	ch := &change{txn: txn, meta: m, index: index, now: m.Now, by: c.By, marks: newMarks()}

	if err := ch.command(c); err != nil {
		txn.Abort()
		txn = db.Txn(true)
		put(txn, tableMeta, m)
		txn.Commit()
		return newMarks(), err
	}
	put(txn, tableMeta, ch.meta)
	txn.Commit()
	return ch.marks, nil
}

func (ch *change) command(c Command) error {
	switch {
	case c.PutSource != nil:
		return ch.putSource(*c.PutSource)
	case c.RemoveSource != nil:
		return ch.removeSource(*c.RemoveSource)
	case c.SawSource != nil:
		return ch.sawSource(c.SawSource.Source, c.SawSource.Status)
	case c.AcceptStacks != nil:
		return ch.acceptStacks(*c.AcceptStacks)
	case c.Decide != nil:
		return ch.decide(*c.Decide)
	case c.ReportStatus != nil:
		return ch.reportStatus(*c.ReportStatus)
	case c.PutNode != nil:
		return ch.putNode(*c.PutNode)
	case c.Operate != nil:
		return ch.operate(*c.Operate)
	case c.PutGrants != nil:
		return ch.putGrants(*c.PutGrants)
	case c.DropVolumes != nil:
		return ch.dropVolumes(c.DropVolumes)
	case c.Lead != nil:
		return ch.lead(*c.Lead)
	case c.PutCluster != nil:
		return ch.putCluster(*c.PutCluster)
	case c.RemoveNode != nil:
		return ch.removeNode(*c.RemoveNode)
	case c.PutToken != nil:
		return ch.putToken(*c.PutToken)
	case c.DropToken != nil:
		return ch.dropToken(*c.DropToken)
	}
	return errors.New("the command says nothing")
}

// putSource writes what an operator says of a source. Status is gitsync's and
// stays; Approved and Created, once set, stay too.
func (ch *change) putSource(source swarm.Source) error {
	if source.ID == "" {
		return errors.New("put source: it has no id")
	}
	old, known := get[swarm.Source](ch.txn, tableSources, string(source.ID))
	source.Status = old.Status
	source.Approved = source.Approved || old.Approved
	if known {
		source.Created = old.Created
	} else {
		if source.Created.IsZero() {
			source.Created = ch.now
		}
		ch.event(swarm.Event{Kind: "source", Text: "source " + string(source.ID) + " was added" + ch.byWhom()})
	}
	put(ch.txn, tableSources, source)
	ch.marks.source(source.ID)
	return nil
}

// removeSource forgets a source. Its stacks stay as they are: whoever wants
// them gone proposes their removal first.
func (ch *change) removeSource(id swarm.SourceID) error {
	source, ok := get[swarm.Source](ch.txn, tableSources, string(id))
	if !ok {
		return fmt.Errorf("remove source %q: %w", id, ErrNotFound)
	}
	remove(ch.txn, tableSources, source)
	ch.marks.source(id)
	ch.event(swarm.Event{Kind: "source", Text: "source " + string(id) + " was removed" + ch.byWhom()})
	return nil
}

// sawSource replaces a source's status.
func (ch *change) sawSource(id swarm.SourceID, status swarm.SourceStatus) error {
	source, ok := get[swarm.Source](ch.txn, tableSources, string(id))
	if !ok {
		return fmt.Errorf("write status of source %q: %w", id, ErrNotFound)
	}
	switch {
	case status.Problem != "" && status.Problem != source.Status.Problem:
		ch.event(swarm.Event{Kind: "source", Revision: status.Head, Text: "source " + string(id) + ": " + status.Problem})
	case status.Problem == "" && source.Status.Problem != "":
		ch.event(swarm.Event{Kind: "source", Revision: status.Head, Text: "source " + string(id) + " could be read again"})
	}
	source.Status = status
	put(ch.txn, tableSources, source)
	ch.marks.source(id)
	return nil
}

// putGrants replaces all grants. Any stack may be allowed something now.
func (ch *change) putGrants(g PutGrants) error {
	put(ch.txn, tableGrants, grants{Grants: g.Grants})
	ch.marks.everything = true
	ch.event(swarm.Event{Kind: "operator", Text: "grants were changed" + ch.byWhom()})
	return nil
}

// dropVolumes gives volumes up, and forgets those that were given up before:
// the first time the node is to remove them, the second time it has. Who speaks
// of a volume as it is not any more is passed over: it was given up, or removed
// and made anew, since.
func (ch *change) dropVolumes(volumes []swarm.KeptVolume) error {
	for _, v := range volumes {
		kept, ok := get[swarm.KeptVolume](ch.txn, tableVolumes, volumeKey(v.ID, v.Node))
		switch {
		case !ok, !kept.Dropped.Equal(v.Dropped):
			continue
		case kept.Dropped.IsZero():
			kept.Dropped = ch.now
			put(ch.txn, tableVolumes, kept)
			ch.event(swarm.Event{Kind: "volume", Node: v.Node, Text: "volume " + string(v.ID) + " was given up" + ch.byWhom()})
		default:
			remove(ch.txn, tableVolumes, kept)
		}
		ch.marks.node(v.Node)
	}
	return nil
}

// lead opens a leader's term: monitor windows begin anew, decisions that an
// earlier leader left on their way are void, and nothing is taken as known.
func (ch *change) lead(l Lead) error {
	if ch.meta.Cluster == "" {
		ch.meta.Cluster = l.Cluster
	}
	for _, record := range list[swarm.StackRecord](ch.txn, tableStacks, byID) {
		if !record.Rollout.Phase.Ended() {
			record.Rollout.Opened = ch.now
			ch.record(record)
		}
	}
	ch.marks.everything = true
	return nil
}

// record writes a stack's record after a change by anyone but the reconciler.
func (ch *change) record(record swarm.StackRecord) {
	record.Version = ch.index
	put(ch.txn, tableStacks, record)
	ch.marks.stack(record.Name)
}

// event puts an event into the ring.
func (ch *change) event(e swarm.Event) {
	e.Index, e.At = ch.index, ch.now
	ch.meta.Events++
	put(ch.txn, tableEvents, numbered{Number: ch.meta.Events, Event: e})
	if ch.meta.Events > eventLimit {
		if old, ok := get[numbered](ch.txn, tableEvents, eventKey(ch.meta.Events-eventLimit)); ok {
			remove(ch.txn, tableEvents, old)
		}
	}
}

// byWhom ends the text of an event: " by ana".
func (ch *change) byWhom() string {
	if ch.by == "" {
		return ""
	}
	return " by " + ch.by
}
