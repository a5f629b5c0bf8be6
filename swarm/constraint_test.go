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

func TestAConstraintComparesWithoutRegardToCase(t *testing.T) {
	node := swarm.Node{
		ID: "n1", Role: swarm.RoleWorker, Labels: map[string]string{"zone": "EU"},
		Description: swarm.NodeDescription{
			Hostname: "web-1", OS: "linux", Arch: "arm64", Labels: map[string]string{"disk": "ssd"}, Address: "10.0.7.9:2377",
		},
	}
	for text, want := range map[string]bool{
		"node.id==N1":                true,
		"node.hostname==Web-1":       true,
		"node.hostname!=web-2":       true,
		"node.role==Worker":          true,
		"node.role!=worker":          false,
		"node.platform.os==Linux":    true,
		"node.platform.arch!=amd64":  true,
		"node.labels.zone==eu":       true,
		"node.labels.Zone==eu":       false, // names of labels do not
		"node.labels.rack!=a":        true,  // a label that the node lacks is another
		"engine.labels.disk==SSD":    true,
		"node.ip==10.0.7.9":          true,
		"node.ip!=10.0.7.9":          false,
		"node.ip==10.0.7.10":         false,
		"node.ip==10.0.0.0/16":       true,
		"node.ip!=10.1.0.0/16":       true,
		"node.ip==fd00::/8":          false,
		"node.ip!=::ffff:10.0.7.9/8": true, // another family
	} {
		c, err := swarm.ParseConstraint(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := c.Holds(node); got != want {
			t.Errorf("%q holds: %t, want %t", text, got, want)
		}
	}
	if c, err := swarm.ParseConstraint("node.ip==10.0.7.300"); err == nil {
		t.Errorf("no address was read as %s", c)
	}
	if c, _ := swarm.ParseConstraint("node.ip==0.0.0.0/0"); c.Holds(swarm.Node{}) {
		t.Error("a node without an address is in a network")
	}
}
