package store

import (
	"fmt"
	"slices"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// decide writes a decision, unless the record that it was taken on has changed
// or one of its new tasks is there already: then it was applied before.
func (ch *change) decide(d Decide) error {
	name := d.Decision.Stack
	record, ok := get[swarm.StackRecord](ch.txn, tableStacks, string(name))
	if !ok {
		return fmt.Errorf("decide on stack %q: it is gone: %w", name, ErrStale)
	}
	if record.Version != d.Decision.Version {
		return fmt.Errorf("decide on stack %q: version %d, not %d: %w", name, record.Version, d.Decision.Version, ErrStale)
	}
	for _, t := range d.Decision.Create {
		if err := ch.create(t); err != nil {
			return fmt.Errorf("decide on stack %q: %w", name, err)
		}
	}
	for _, desire := range d.Decision.Desire {
		ch.desire(desire)
	}
	for _, id := range d.Decision.Forget {
		ch.forget(id)
	}

	if err := ch.allocate(d); err != nil {
		return fmt.Errorf("decide on stack %q: %w", name, err)
	}
	ch.progress(&record, d.Decision)
	put(ch.txn, tableStacks, record) // Version stays: the reconciler's own changes void nothing
	ch.marks.stack(name)
	for _, e := range d.Decision.Events {
		ch.event(e)
	}
	if d.Decision.Gone {
		ch.gone(record)
	}
	return nil
}

func (ch *change) create(t swarm.Task) error {
	if t.ID == "" {
		return fmt.Errorf("create a task of %s: it has no id", t.Service)
	}
	if _, there := get[swarm.Task](ch.txn, tableTasks, string(t.ID)); there {
		return fmt.Errorf("create task %s: it is there already: %w", t.ID, ErrStale)
	}
	if t.Created.IsZero() {
		t.Created = ch.now
	}
	if t.Status.Since.IsZero() {
		t.Status.Since = ch.now
	}
	if t.DesiredAt.IsZero() {
		t.DesiredAt = ch.now
	}
	if t.Desired == swarm.DesiredRun && t.Touched.IsZero() {
		t.Touched = t.DesiredAt
	}
	ch.placed(&t)
	put(ch.txn, tableTasks, t)
	ch.marks.node(t.Node)
	return nil
}

// placed gives a new task with a node its state.
func (ch *change) placed(t *swarm.Task) {
	if t.Node != "" && t.Status.State == swarm.TaskNew {
		t.Status.State, t.Status.Since, t.Status.Message = swarm.TaskAssigned, ch.now, ""
	}
}

// desire asks something new of a task. What is asked only ever grows: a
// smaller Desired is passed over. So is a task that was forgotten.
func (ch *change) desire(d swarm.Desire) {
	t, ok := get[swarm.Task](ch.txn, tableTasks, string(d.Task))
	if !ok {
		return
	}
	if d.Desired > t.Desired {
		at := d.At
		if at.IsZero() {
			at = ch.now
		}
		t.Desired, t.DesiredAt = d.Desired, at
		if d.Desired == swarm.DesiredRun && t.Touched.IsZero() {
			t.Touched = at
		}
	}
	if !d.NotBefore.IsZero() {
		t.NotBefore = d.NotBefore
	}
	if d.Excused != "" {
		t.Excused = d.Excused
	}
	if t.Status.State == swarm.TaskNew {
		ch.place(&t, d)
	}
	if t.Node == "" && t.Desired >= swarm.DesiredStop && t.Status.State.Live() {
		t.Status.State, t.Status.Since = swarm.TaskStopped, ch.now // no node will ever say so
	}
	put(ch.txn, tableTasks, t)
	ch.marks.node(t.Node)
}

// place gives a task that waits for a node its node, or the reason why it has
// none. A task never moves.
func (ch *change) place(t *swarm.Task, d swarm.Desire) {
	if d.Message != "" {
		t.Status.Message = d.Message
	}
	if d.Node == "" {
		return
	}
	if t.Node == "" {
		t.Node = d.Node
	}
	if len(d.Addresses) > 0 {
		t.Addresses = d.Addresses
	}
	if d.Claims != nil {
		t.Claims = d.Claims
	}
	ch.placed(t)
}

func (ch *change) forget(id swarm.TaskID) {
	if t, ok := get[swarm.Task](ch.txn, tableTasks, string(id)); ok {
		remove(ch.txn, tableTasks, t)
		ch.marks.node(t.Node)
	}
}

// allocate writes what the allocator added.
func (ch *change) allocate(d Decide) error {
	for _, n := range d.Networks {
		if n.ID == "" {
			return fmt.Errorf("put network %s: it has no id", n.Subnet)
		}
		put(ch.txn, tableNetworks, n)
	}
	for _, id := range d.DropNetworks {
		if n, ok := get[swarm.AllocatedNetwork](ch.txn, tableNetworks, string(id)); ok {
			remove(ch.txn, tableNetworks, n)
		}
	}
	for _, e := range d.Endpoints {
		if e.Service == "" {
			return fmt.Errorf("put endpoint: it has no service")
		}
		put(ch.txn, tableEndpoints, e)
	}
	for _, id := range d.DropEndpoints {
		if e, ok := get[swarm.Endpoint](ch.txn, tableEndpoints, string(id)); ok {
			remove(ch.txn, tableEndpoints, e)
		}
	}
	for _, v := range d.Volumes {
		ch.keep(v)
	}
	return nil
}

// keep writes a volume; the time it was made stays.
func (ch *change) keep(v swarm.KeptVolume) {
	old, known := get[swarm.KeptVolume](ch.txn, tableVolumes, volumeKey(v.ID, v.Node))
	if known {
		v.Created = old.Created
	}
	if v.Created.IsZero() {
		v.Created = ch.now
	}
	put(ch.txn, tableVolumes, v)
	ch.marks.node(v.Node)
}

// progress writes the reconciler's fields of the record.
func (ch *change) progress(record *swarm.StackRecord, d swarm.Decision) {
	if d.Rollout != nil {
		record.Rollout = *d.Rollout
	}
	if d.Healthy != nil {
		record.Healthy = *d.Healthy
	}
	if d.Ended != nil {
		record.History = prepend(*d.Ended, record.History)
	}
	if d.Quarantine != nil {
		quarantine(record, *d.Quarantine)
	}
	if d.Rebalanced {
		record.Rebalance = false
	}
}

// quarantine puts content to the front of the quarantine. Content is in it
// once.
func quarantine(record *swarm.StackRecord, q swarm.Quarantined) {
	release(record, q.Content)
	record.Quarantine = prepend(q, record.Quarantine)
}

// release takes content out of the quarantine.
func release(record *swarm.StackRecord, content swarm.Digest) {
	var kept []swarm.Quarantined
	for _, q := range record.Quarantine {
		if q.Content != content {
			kept = append(kept, q)
		}
	}
	record.Quarantine = kept
}

// prepend returns a new slice, newest first, of at most HistoryLimit.
func prepend[T any](v T, older []T) []T {
	all := append([]T{v}, older...)
	return slices.Clip(all[:min(len(all), swarm.HistoryLimit)])
}

// gone forgets a removed stack. Its volumes stay, as orphans.
func (ch *change) gone(record swarm.StackRecord) {
	prefix := string(record.Name) + "/"
	for _, t := range list[swarm.Task](ch.txn, tableTasks, byStack, string(record.Name)) {
		ch.forget(t.ID)
	}
	for _, e := range list[swarm.Endpoint](ch.txn, tableEndpoints, byIDPrefix, prefix) {
		remove(ch.txn, tableEndpoints, e)
	}
	for _, n := range list[swarm.AllocatedNetwork](ch.txn, tableNetworks, byIDPrefix, prefix) {
		remove(ch.txn, tableNetworks, n)
	}
	for _, v := range list[swarm.KeptVolume](ch.txn, tableVolumes, byIDPrefix, prefix) {
		if v.Orphan.IsZero() {
			v.Orphan = ch.now
			put(ch.txn, tableVolumes, v)
			ch.marks.node(v.Node)
		}
	}
	remove(ch.txn, tableStacks, record)
}

// reportStatus writes what agents said. States only grow and an ended task
// stays as it ended; a report that tells nothing new touches nothing.
func (ch *change) reportStatus(r ReportStatus) error {
	for _, report := range r.Tasks {
		t, ok := get[swarm.Task](ch.txn, tableTasks, string(report.Task))
		if !ok || !t.Status.State.Live() || report.Status.State < t.Status.State {
			continue
		}
		next := merge(t.Status, report.Status, ch.now)
		if sameStatus(next, t.Status) {
			continue
		}
		t.Status = next
		put(ch.txn, tableTasks, t)
		ch.marks.stack(t.Service.Stack())
	}
	return nil
}

// merge returns the status after a report of the same or a later state. Times
// are the cluster's; what was drained or ended for lack of memory stays so.
func merge(old, report swarm.TaskStatus, now time.Time) swarm.TaskStatus {
	next := report
	next.Since, next.Started, next.Healthy = old.Since, old.Started, old.Healthy
	next.Drained = old.Drained || report.Drained
	next.OOM = old.OOM || report.OOM
	if report.State == old.State {
		return next
	}

	next.Since = now
	if report.State.Running() && next.Started.IsZero() {
		next.Started = now
	}
	if report.State == swarm.TaskHealthy {
		next.Healthy = now
	}
	return next
}

// sameStatus compares, with exit codes by value.
func sameStatus(a, b swarm.TaskStatus) bool {
	if (a.Exit == nil) != (b.Exit == nil) || (a.Exit != nil && *a.Exit != *b.Exit) {
		return false
	}
	a.Exit, b.Exit = nil, nil
	return a == b
}
