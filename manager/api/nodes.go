package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gitswarm/gitswarm/swarm"
)

type (
	oneNode struct {
		Node string `path:"node" maxLength:"255" doc:"id, the first letters of one, or hostname"`
	}
	onNode[T any] struct {
		Node string `path:"node" maxLength:"255" doc:"id, the first letters of one, or hostname"`
		Body T
	}
	availabilityBody struct {
		Availability string `json:"availability" enum:"active,paused,drained"`
	}
	roleBody struct {
		Role string `json:"role" enum:"worker,manager"`
	}
	labelBody struct {
		Set    map[string]string `json:"set,omitempty" maxProperties:"1000"`
		Remove []string          `json:"remove,omitempty" maxItems:"1000"`
	}
)

func (s *Server) nodeRoutes(api huma.API) {
	register(s, api, reading("list-nodes", "/v1/nodes", "Every node"), s.listNodes)
	register(s, api, reading("get-node", "/v1/nodes/{node}", "One node, by id or hostname"), s.getNode)
	register(s, api, acting("set-availability", "/v1/nodes/{node}/availability", "Drain, pause or activate a node"), s.setAvailability)
	register(s, api, acting("set-role", "/v1/nodes/{node}/role", "Promote or demote a node"), s.setRole)
	register(s, api, acting("label-node", "/v1/nodes/{node}/labels", "Change the labels that constraints see as node.labels"), s.labelNode)
	register(s, api, huma.Operation{
		OperationID: "remove-node", Method: http.MethodDelete, Path: "/v1/nodes/{node}",
		Summary: "Forget a node; its certificate is worth nothing from then on", DefaultStatus: http.StatusOK,
	}, s.removeNode)
}

func (s *Server) listNodes(ctx context.Context, _ *none) (*body[[]Node], error) {
	shot := s.snapshot(ctx)
	running := map[swarm.NodeID]int{}
	for _, tasks := range shot.Tasks {
		for _, task := range tasks {
			if task.Status.State.Running() {
				running[task.Node]++
			}
		}
	}
	leader := s.leader()
	nodes := []Node{}
	for _, node := range shot.Nodes {
		view := nodeOf(node, running[node.ID])
		view.Leader = node.ID == leader
		nodes = append(nodes, view)
	}
	return answer(nodes)
}

// leader is the node that leads, as far as this manager knows.
func (s *Server) leader() swarm.NodeID {
	if s.Managers == nil {
		return s.Node
	}
	leader, _ := s.Managers.Leader()
	return leader.Node
}

func (s *Server) getNode(ctx context.Context, in *oneNode) (*body[Node], error) {
	named, err := s.node(in.Node)
	if err != nil {
		return nil, err
	}
	nodes, err := s.listNodes(ctx, nil)
	if err != nil {
		return nil, err
	}
	for _, node := range nodes.Body {
		if node.ID == string(named.ID) {
			return answer(node)
		}
	}
	return nil, noNode(in.Node)
}

func noNode(name string) error {
	return NotFound(fmt.Sprintf("no node %q", name), "gitswarm node ls lists them")
}

// node finds the one node that a person means: by its id, its hostname, or the
// first letters of its id.
func (s *Server) node(name string) (swarm.Node, error) {
	return nodeNamed(s.View().Nodes(), name)
}

func nodeNamed(nodes []swarm.Node, name string) (swarm.Node, error) {
	for _, fits := range []func(swarm.Node) bool{
		func(n swarm.Node) bool { return string(n.ID) == name },
		func(n swarm.Node) bool { return n.Description.Hostname == name },
		func(n swarm.Node) bool { return strings.HasPrefix(string(n.ID), name) },
	} {
		var found []swarm.Node
		for _, node := range nodes {
			if name != "" && fits(node) {
				found = append(found, node)
			}
		}
		switch len(found) {
		case 0:
			continue
		case 1:
			return found[0], nil
		}
		var ids []string
		for _, node := range found {
			ids = append(ids, string(node.ID))
		}
		return swarm.Node{}, Conflict(fmt.Sprintf("%q names %d nodes", name, len(found)), "give the id of one: "+firstFew(ids))
	}
	return swarm.Node{}, noNode(name)
}

// onNode carries out an act on a node and says what was done.
func (s *Server) onNode(name, text string, act func(swarm.NodeID) error) (*body[Done], error) {
	node, err := s.node(name)
	if err != nil {
		return nil, err
	}
	if err := act(node.ID); err != nil {
		return nil, err
	}
	shown := node.Description.Hostname
	if shown == "" {
		shown = string(node.ID)
	}
	return answer(Done{Text: fmt.Sprintf(text, shown)})
}

func (s *Server) setAvailability(ctx context.Context, in *onNode[availabilityBody]) (*body[Done], error) {
	wanted := swarm.Availability(in.Body.Availability)
	text := "%s is active: it gets tasks again"
	switch wanted {
	case swarm.NodeDrained:
		text = "%s is drained: its tasks move, one replacement at a time → gitswarm node ps %[1]s"
	case swarm.NodePaused:
		text = "%s is paused: it keeps its tasks and gets no new ones"
	}
	return s.onNode(in.Node, text, func(node swarm.NodeID) error {
		return s.Nodes.SetAvailability(ctx, node, wanted, by(ctx))
	})
}

func (s *Server) setRole(ctx context.Context, in *onNode[roleBody]) (*body[Done], error) {
	text := "%s becomes a manager"
	if in.Body.Role == swarm.RoleWorker {
		text = "%s becomes a worker"
	}
	return s.onNode(in.Node, text, func(node swarm.NodeID) error {
		return s.Nodes.SetRole(ctx, node, in.Body.Role, by(ctx))
	})
}

// maxLabel bounds the name and the value of a label.
const maxLabel = 1024

func (s *Server) labelNode(ctx context.Context, in *onNode[labelBody]) (*body[Done], error) {
	if len(in.Body.Set)+len(in.Body.Remove) == 0 {
		return nil, Invalid("no label was given", "gitswarm node label NODE zone=eu disk-")
	}
	for name, value := range in.Body.Set {
		if name == "" || len(name) > maxLabel || len(value) > maxLabel || strings.ContainsAny(name, " =!") {
			return nil, Invalid(fmt.Sprintf("label %q is not taken", name), "write NAME=VALUE, without spaces in the name")
		}
		if slices.Contains(in.Body.Remove, name) {
			return nil, Invalid(fmt.Sprintf("label %q is set and removed", name), "do one of the two")
		}
	}
	return s.onNode(in.Node, "%s is labelled; tasks that it no longer suits move", func(node swarm.NodeID) error {
		return s.Nodes.Label(ctx, node, in.Body.Set, in.Body.Remove, by(ctx))
	})
}

func (s *Server) removeNode(ctx context.Context, in *struct {
	Node  string `path:"node" maxLength:"255" doc:"id, the first letters of one, or hostname"`
	Force bool   `query:"force" doc:"although it is not down"`
}) (*body[Done], error) {
	return s.onNode(in.Node, "%s is forgotten; its certificate is worth nothing from now on", func(node swarm.NodeID) error {
		return s.Nodes.RemoveNode(ctx, node, in.Force, by(ctx))
	})
}
