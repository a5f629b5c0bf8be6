package main

import (
	"fmt"
	"strings"
)

// splitTargets reads "shop", or "shop/web shop/db", as one stack and some of
// its services.
func splitTargets(targets []string) (stack string, services []string, err error) {
	for _, target := range targets {
		name, service, ok := strings.Cut(target, "/")
		if name == "" || ok && service == "" {
			return "", nil, fmt.Errorf("%q names no stack or service: give STACK or STACK/SERVICE", target)
		}
		if stack != "" && name != stack {
			return "", nil, fmt.Errorf("%s and %s are of two stacks: give services of one", targets[0], target)
		}
		stack = name
		if ok {
			services = append(services, service)
		}
	}
	if len(services) > 0 && len(services) < len(targets) {
		return "", nil, fmt.Errorf("%s is the whole stack: leave its services out", stack)
	}
	return stack, services, nil
}
