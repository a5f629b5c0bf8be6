package reconciler

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gitswarm/gitswarm/swarm"
)

// TestACorruptRecordKillsNobody decides on views that no manager should ever
// have.
func TestACorruptRecordKillsNobody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster("n1", "n2", "n3")
		c.acts = drawActs(t, 4, false)
		c.accept("v1", drawStack(t, 1))
		for i := range 3 {
			disturb(t, c, i)
			c.run(7*time.Second, nil)
		}

		view := c.view()
		for range rapid.IntRange(1, 4).Draw(t, "damages") {
			damage(t, &view)
		}
		d := Advance(view, c.now)
		if d.Gone && len(view.Tasks) > 0 {
			t.Fatalf("forgot a stack that has %d tasks", len(view.Tasks))
		}
		Diff(view)
		Target(view)
	})
}

func damage(t *rapid.T, view *View) {
	record := &view.Record
	switch rapid.IntRange(0, 9).Draw(t, "damage") {
	case 0:
		record.Rollout.Phase = swarm.Phase(rapid.SampledFrom([]string{"", "waiting", "progressing", "paused", "rolling-back", "healthy", "failed", "rolled-back", "superseded", "confused"}).Draw(t, "phase"))
	case 1:
		view.Accepted = nil
	case 2:
		view.Healthy = nil
	case 3:
		record.Healthy = swarm.Rendered{}
	case 4:
		record.Rollout.To.Content = "sha256:unknown"
	case 5:
		view.Nodes = nil
	case 6:
		record.Rollout.Groups = []string{"g", "unknown"}
	case 7:
		record.Removing = true
	case 8:
		for i := range view.Tasks {
			view.Tasks[i].Slot = rapid.IntRange(-1, 3).Draw(t, "slot")
		}
	case 9:
		if view.Accepted != nil {
			circle := *view.Accepted
			circle.Services = nil
			for _, service := range view.Accepted.Services {
				service.Replicas = rapid.IntRange(-5, 20).Draw(t, "replicas")
				for _, name := range serviceNames {
					service.DependsOn = append(service.DependsOn, swarm.Dependency{Service: name, Condition: swarm.ServiceHealthy})
				}
				circle.Services = append(circle.Services, service)
			}
			view.Accepted = &circle
		}
	}
}

// TestMissingContentStopsNothing loses the contents of a stack that runs: the
// rollout fails with a reason, and not one task is asked to go.
func TestMissingContentStopsNothing(t *testing.T) {
	c := newCluster("n1")
	c.accept("v1", parseStack(t, "web image=web:1 replicas=2"))
	c.run(time.Minute, c.over)
	for name, lose := range map[string]func(*View){
		"accepted": func(v *View) { v.Accepted = nil },
		"healthy":  func(v *View) { v.Healthy = nil },
		"both":     func(v *View) { v.Accepted, v.Healthy = nil, nil },
		"record":   func(v *View) { v.Healthy, v.Record.Healthy = nil, swarm.Rendered{} },
		"phase":    func(v *View) { v.Record.Rollout.Phase = "confused" },
	} {
		view := c.view()
		lose(&view)
		d := Advance(view, c.now)
		if d.Rollout == nil || d.Rollout.Phase != swarm.PhaseFailed || !strings.Contains(d.Rollout.Why, ":") {
			t.Errorf("%s: decided %+v", name, d.Rollout)
		}
		if len(d.Desire)+len(d.Create)+len(d.Forget) > 0 {
			t.Errorf("%s: touched tasks: %+v", name, d)
		}
	}
}
