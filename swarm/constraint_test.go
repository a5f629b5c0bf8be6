package swarm_test

import (
	"testing"

	"github.com/gitswarm/gitswarm/swarm"
)

func TestAConstraintHasOneOperator(t *testing.T) {
	for text, want := range map[string]string{
		"node.labels.zone == eu": "node.labels.zone==eu",
		"node.role!=manager":     "node.role!=manager",
		"node.labels.zone==a!=b": "",
		"node.labels.zone!=a==b": "",
		"node.role=manager":      "",
		"node.role==":            "",
		"==manager":              "",
		"node.colour==red":       "",
		"!":                      "",
	} {
		c, err := swarm.ParseConstraint(text)
		if want == "" && err == nil {
			t.Errorf("%q was read as %s, want it refused", text, c)
		}
		if want != "" && (err != nil || c.String() != want) {
			t.Errorf("%q was read as %s, %v; want %s", text, c, err, want)
		}
	}
}
