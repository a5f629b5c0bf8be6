// Package policy judges stacks and plans by rules. It reads no clock, opens no
// connection and keeps nothing between calls; a rule is a typed expression of
// the Common Expression Language, which is checked when it is loaded and
// cannot loop.
package policy

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"cel.dev/cel-go/cel"

	"github.com/gitswarm/gitswarm/swarm"
)

// A Rule says what a service may not do.
type Rule struct {
	Name   string // what a grant names: "runtime-socket"
	Key    string // the compose key it is about, for file and line: "volumes"
	Offend string // CEL over `service`: the values that offend, as a list of strings
	Says   string // why it is refused, after the value: "hands the whole node to the container"
}

// Rules are compiled rules. They are immutable and safe for concurrent use.
type Rules struct{ rules []compiled }

type compiled struct {
	Rule
	program cel.Program
}

// Place tells where a compose file writes a key of a service; line 0 means
// unknown.
type Place func(service, key string) (file string, line int)

// costLimit bounds what one rule may spend on one service, in CEL's units.
const costLimit = 1_000_000

// Compile checks the rules' types and makes them ready.
func Compile(rules []Rule) (*Rules, error) {
	env, err := cel.NewEnv(cel.Variable("service", cel.MapType(cel.StringType, cel.DynType)))
	if err != nil {
		return nil, fmt.Errorf("prepare the rule language: %w", err)
	}
	r := &Rules{}
	for _, rule := range rules {
		ast, issues := env.Compile(rule.Offend)
		if issues.Err() != nil {
			return nil, fmt.Errorf("compile rule %q: %w", rule.Name, issues.Err())
		}
		program, err := env.Program(ast, cel.CostLimit(costLimit))
		if err != nil {
			return nil, fmt.Errorf("compile rule %q: %w", rule.Name, err)
		}
		r.rules = append(r.rules, compiled{rule, program})
	}
	return r, nil
}

// Judge answers whether the stack may run: Allow, or Deny with each violation
// that no grant covers.
func (r *Rules) Judge(stack swarm.Stack, grants []swarm.Grant, place Place) (swarm.Verdict, error) {
	var violations []swarm.Finding
	for _, service := range stack.Services {
		facts := factsOf(service)
		for _, rule := range r.rules {
			values, err := rule.offenders(facts)
			if err != nil {
				return swarm.Verdict{}, fmt.Errorf("judge %s/%s by rule %q: %w", stack.Name, service.Name, rule.Name, err)
			}
			for _, value := range values {
				if !granted(grants, stack.Name, service.Name, rule.Name, value) {
					violations = append(violations, violation(stack.Name, service, rule.Rule, value, place))
				}
			}
		}
	}
	if len(violations) == 0 {
		return swarm.Verdict{Answer: swarm.Allow}, nil
	}
	slices.SortStableFunc(violations, func(a, b swarm.Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule))
	})
	return swarm.Verdict{Answer: swarm.Deny, Violations: violations}, nil
}

func (c compiled) offenders(facts map[string]any) ([]string, error) {
	out, _, err := c.program.Eval(map[string]any{"service": facts})
	if err != nil {
		return nil, err
	}
	native, err := out.ConvertToNative(reflect.TypeFor[[]string]())
	if err != nil {
		return nil, fmt.Errorf("it must give a list of strings: %w", err)
	}
	return native.([]string), nil
}

func granted(grants []swarm.Grant, stack swarm.StackName, service, rule, value string) bool {
	return slices.ContainsFunc(grants, func(g swarm.Grant) bool {
		return g.Stack == stack && g.Rule == rule &&
			(g.Service == "" || g.Service == service) &&
			(g.Value == "" || g.Value == value)
	})
}

func violation(stack swarm.StackName, service swarm.Service, rule Rule, value string, place Place) swarm.Finding {
	file, line := place(service.Name, rule.Key)
	return swarm.Finding{
		Rule: rule.Name, Class: swarm.Refused, Service: service.Name, File: file, Line: line,
		Text: fmt.Sprintf("service %s: %s %s; remove it, or grant it in the daemon's configuration: allow: [{stack: %s, service: %s, rule: %s, value: %q}]",
			service.Name, value, rule.Says, stack, service.Name, rule.Name, value),
	}
}
