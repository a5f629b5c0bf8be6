package manager

import (
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/gitsync"
	"github.com/gitswarm/gitswarm/gitsync/compose"
	"github.com/gitswarm/gitswarm/swarm"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func TestACommitReloadsTheStacksWhoseFilesItTouched(t *testing.T) {
	shop := gitsync.Found{Name: "shop", Dir: "shop", Files: []string{"shop/compose.yaml"}}
	reads := []string{"shop/.env", "shared/base.yaml", "shop/static/"}
	for path, want := range map[string]bool{
		"shop/compose.yaml":    true,
		"shop/.env":            true,
		"shared/base.yaml":     true,
		"shop/static/a/b.html": true,
		"shop/README.md":       false,
		"blog/compose.yaml":    false,
		"shop/static.txt":      false,
	} {
		if got := touches([]string{path}, shop, reads); got != want {
			t.Errorf("a change of %s touches shop: %t, want %t", path, got, want)
		}
	}
}

func TestAWaitingStackIsTriedAgainSoonAndThenLessOften(t *testing.T) {
	for waited, want := range map[time.Duration]time.Duration{0: 2 * time.Second, 10 * time.Second: 10 * time.Second, time.Hour: 30 * time.Second} {
		if got := tryAgain([]swarm.Problem{{Since: noon.Add(-waited)}}, noon).Sub(noon); got != want {
			t.Errorf("after %s of waiting it is tried again in %s, want %s", waited, got, want)
		}
	}
	if at := tryAgain(nil, noon); !at.IsZero() {
		t.Errorf("nothing waits, and it is looked at again at %s", at)
	}
}

func TestAnAnswerThatSaysNothingNewIsNotProposed(t *testing.T) {
	head := swarm.Rendered{Revision: "main@sha1:aaa", Content: "sha256:1"}
	c := &candidate{found: gitsync.Found{Name: "shop"}, head: head, record: swarm.StackRecord{Name: "shop", Head: head, Accepted: head}}
	if _, changed := c.acceptance(noon); changed {
		t.Error("the head that the record has was proposed again")
	}
	c.problem = &swarm.Problem{Kind: swarm.ProblemWaiting, Text: "image is missing"}
	accept, changed := c.acceptance(noon)
	if !changed || accept.Problem.Since != noon {
		t.Errorf("a new problem gives %+v, %t; want it proposed, since now", accept.Problem, changed)
	}
	c.record.Problem = &swarm.Problem{Kind: swarm.ProblemWaiting, Text: "registry is down", Since: noon.Add(-time.Minute)}
	if accept, _ := c.acceptance(noon); accept.Problem.Since != noon.Add(-time.Minute) {
		t.Errorf("it waits since %s, want since it began to wait", accept.Problem.Since)
	}
}

func TestAMissingSecretFileWaitsAndAnythingElseIsRefused(t *testing.T) {
	missing := swarm.Finding{Rule: "secrets.token.file", Class: swarm.Refused, Text: "token.txt " + compose.MissingFile}
	warning := swarm.Finding{Rule: "services.web.links", Class: swarm.Warned}
	privileged := swarm.Finding{Rule: "services.web.userns_mode", Class: swarm.Refused}

	if got := loadProblem(&compose.Error{Findings: []swarm.Finding{warning, missing}}); got != swarm.ProblemWaiting {
		t.Errorf("a missing secret is %q, want %q", got, swarm.ProblemWaiting)
	}
	if got := loadProblem(&compose.Error{Findings: []swarm.Finding{missing, privileged}}); got != swarm.ProblemLoad {
		t.Errorf("a refused key beside it is %q, want %q", got, swarm.ProblemLoad)
	}
}

func TestManualRollbackGoesToTheLastOtherHealthyRevision(t *testing.T) {
	rendered := func(n string) swarm.Rendered {
		return swarm.Rendered{Revision: swarm.Revision("main@sha1:" + n), Content: swarm.Digest("sha256:" + n)}
	}
	record := swarm.StackRecord{Name: "shop", Accepted: rendered("4"), Healthy: rendered("4"), History: []swarm.Ended{
		{To: rendered("4"), Phase: swarm.PhaseHealthy},
		{To: rendered("3"), Phase: swarm.PhaseRolledBack},
		{To: rendered("2"), Phase: swarm.PhaseHealthy},
		{To: rendered("1"), Phase: swarm.PhaseHealthy},
	}}
	if to, err := rollbackTarget(record, ""); err != nil || to != rendered("2") {
		t.Errorf("rolled back to %+v, %v; want revision 2", to, err)
	}
	if to, err := rollbackTarget(record, "main@sha1:1"); err != nil || to != rendered("1") {
		t.Errorf("rolled back to %+v, %v; want revision 1, as asked", to, err)
	}
	if _, err := rollbackTarget(record, "main@sha1:9"); err == nil || !strings.Contains(err.Error(), "gitswarm history shop") {
		t.Errorf("error is %v, want one that says where to look", err)
	}
	record.Accepted = rendered("5") // failed, or under way
	if to, err := rollbackTarget(record, ""); err != nil || to != rendered("4") {
		t.Errorf("rolled back to %+v, %v; want the healthy revision 4", to, err)
	}
}

func TestHealthChecksOfFileAndImageAreJoined(t *testing.T) {
	image := &swarm.Healthcheck{Test: []string{"/health"}, Interval: 30 * time.Second}
	for claim, c := range map[string]struct {
		written, image *swarm.Healthcheck
		test           string
		interval       time.Duration
	}{
		"the image's own":             {nil, image, "/health", 30 * time.Second},
		"the file's times, its test":  {&swarm.Healthcheck{Interval: time.Second}, image, "/health", time.Second},
		"the file's own":              {&swarm.Healthcheck{Test: []string{"/mine"}, Interval: time.Second}, image, "/mine", time.Second},
		"NONE overrides the image":    {&swarm.Healthcheck{Test: []string{"NONE"}}, image, "", 0},
		"none anywhere":               {nil, nil, "", 0},
		"times without a test at all": {&swarm.Healthcheck{Interval: time.Second}, nil, "", 0},
	} {
		got := health(c.written, c.image)
		switch {
		case c.test == "" && got != nil:
			t.Errorf("%s: got %+v, want none", claim, got)
		case c.test != "" && (got == nil || got.Test[0] != c.test || got.Interval != c.interval):
			t.Errorf("%s: got %+v, want %s every %s", claim, got, c.test, c.interval)
		}
	}
}
