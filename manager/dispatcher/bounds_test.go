package dispatcher

import (
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/wire"
	"github.com/gitswarm/gitswarm/swarm"
)

func TestANodeCannotFillTheLogWithWhatItSaysOfItself(t *testing.T) {
	m := newManager(t)
	p := m.join("n1", wire.Held{})
	p.send(wire.FromAgent{Describe: &swarm.NodeDescription{Hostname: strings.Repeat("n", maxDescription)}})
	within(t, 5*time.Second, "its session has ended", func() bool { return p.ended() != nil })
	if why := p.ended().Error(); !strings.Contains(why, "describes itself in") {
		t.Errorf("it ended with %q", why)
	}
	if node, _ := m.store.View().Node("n1"); node.Description.Hostname != "n1" {
		t.Errorf("its name has %d bytes", len(node.Description.Hostname))
	}
}

// One entry carries the reports of many nodes: if one node could make it too
// large for the log, no other would be heard.
func TestANodeCannotMakeAReportTooLargeForTheLog(t *testing.T) {
	m := newManager(t)
	m.shop(m.task(web1, "n1"))
	p := m.join("n1", wire.Held{})
	long := strings.Repeat("x", 1<<20)
	p.send(wire.FromAgent{Reports: []wire.Report{{Task: web1, Status: swarm.TaskStatus{State: swarm.TaskFailed, Message: long, Cause: swarm.Cause(long)}}}})
	within(t, 5*time.Second, "the report is in the log", func() bool { return m.status(web1).State == swarm.TaskFailed })
	if s := m.status(web1); len(s.Message) > maxMessage || s.Cause != "" {
		t.Errorf("%d bytes of words, %d of blame", len(s.Message), len(s.Cause))
	}
}
