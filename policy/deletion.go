package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// Removal thresholds: what a commit may take away without being asked.
const (
	askStacks  = 2  // stacks of one source, within a day
	askPercent = 20 // of the services of one source, within a day
)

// Deletions is what a commit of a source takes away, for JudgeDeletions.
type Deletions struct {
	Source   swarm.Source
	Moved    bool              // branch or path differ from what was last read
	Stacks   []swarm.StackName // that the commit removes, sorted
	Services []swarm.ServiceID // that the commit removes, those of Stacks included, sorted
	Owning   []swarm.StackName // of Stacks: those that own volumes
	Left     int               // stacks of the source that stay
	Unread   []swarm.StackName // new stacks that could not be read, sorted
	Existing int               // services of the source before the commit

	// What earlier commits removed within the last day.
	RecentStacks   int
	RecentServices int
}

// JudgeDeletions answers Allow, or Ask with the reason: what is removed by
// mistake can't be brought back.
func JudgeDeletions(d Deletions) swarm.Verdict {
	why := d.why()
	if why == "" {
		return swarm.Verdict{Answer: swarm.Allow}
	}
	return swarm.Verdict{Answer: swarm.Ask, Why: why}
}

func (d Deletions) why() string {
	if !d.Source.Approved {
		return "the first sync of a source only plans"
	}
	if len(d.Services) == 0 && len(d.Stacks) == 0 {
		return ""
	}
	switch {
	case d.Moved:
		return "the source's branch or path changed, and this removes " + names(d.Services)
	case len(d.Owning) > 0:
		return "stack " + join(d.Owning) + " owns volumes"
	case len(d.Stacks) > 0 && len(d.Unread) > 0:
		return "stack " + join(d.Unread) + " can't be read, and may be the new name of " + join(d.Stacks)
	case len(d.Stacks) > 0 && d.Left == 0:
		return "it removes the last stack of the source"
	case len(d.Stacks) > 0 && len(d.Stacks)+d.RecentStacks >= askStacks:
		return fmt.Sprintf("it makes %d stacks removed within a day", len(d.Stacks)+d.RecentStacks)
	}
	removed, all := len(d.Services)+d.RecentServices, d.Existing+d.RecentServices
	if removed*100 >= askPercent*all {
		return fmt.Sprintf("it makes %d of %d services removed within a day: %s", removed, all, names(d.Services))
	}
	return ""
}

func join(stacks []swarm.StackName) string {
	words := make([]string, 0, len(stacks))
	for _, stack := range stacks {
		words = append(words, string(stack))
	}
	return strings.Join(words, ", ")
}

// names lists a few services and counts the rest.
func names(services []swarm.ServiceID) string {
	const shown = 5
	sorted := slices.Sorted(slices.Values(services))
	words := make([]string, 0, shown)
	for _, service := range sorted[:min(len(sorted), shown)] {
		words = append(words, string(service))
	}
	text := strings.Join(words, ", ")
	if more := len(sorted) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
