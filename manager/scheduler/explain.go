package scheduler

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// reasonsShown is how many different reasons an explanation lists.
const reasonsShown = 5

// tally is the nodes behind one reason.
type tally struct {
	refusal       // of a shortage, the one that came closest
	nodes   int64 // 1 <= nodes
}

func (t tally) String() string {
	amounts := ""
	if t.unit != unitNone {
		most := ""
		if t.nodes > 1 {
			most = "at most "
		}
		amounts = " (" + t.unit.write(t.reserved) + " reserved, " + most + t.unit.write(t.free) + " free)"
	}
	return t.text + amounts + " on " + plural(t.nodes, "node")
}

// explain counts the nodes behind each refusal, the most frequent first.
func explain(refusals []refusal) string {
	if len(refusals) == 0 {
		return "the cluster has no nodes"
	}
	at := make(map[string]int)
	var reasons []tally
	for _, why := range refusals {
		i, seen := at[why.text]
		if !seen {
			at[why.text] = len(reasons)
			reasons = append(reasons, tally{why, 1})
			continue
		}
		reasons[i].nodes++
		reasons[i].free = max(reasons[i].free, why.free)
	}
	slices.SortFunc(reasons, func(a, b tally) int {
		return cmp.Or(cmp.Compare(b.nodes, a.nodes), cmp.Compare(a.text, b.text))
	})

	var parts []string
	var further int64
	for i, reason := range reasons {
		if i < reasonsShown {
			parts = append(parts, reason.String())
		} else {
			further += reason.nodes
		}
	}
	if further > 0 {
		parts = append(parts, "other reasons on "+plural(further, "node"))
	}
	return strings.Join(parts, ", ")
}

// seatName is the task in the words of people: "shop/web.2".
func seatName(w *Wanted) string {
	return string(w.Service.Stack()) + "/" + swarm.SlotName(w.Service.Name(), w.Slot)
}

func bytes(n int64) string {
	switch {
	case n >= 1<<30:
		return strconv.FormatFloat(float64(n)/(1<<30), 'f', 1, 64) + " GiB"
	case n >= 1<<20:
		return strconv.FormatInt(n>>20, 10) + " MiB"
	}
	return strconv.FormatInt(n, 10) + " B"
}

func cores(nano int64) string { return strconv.FormatFloat(float64(nano)/1e9, 'g', 4, 64) }

func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.FormatInt(n, 10) + " " + noun + "s"
}
