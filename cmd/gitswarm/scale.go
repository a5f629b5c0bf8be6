package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) scaleCommand() *cobra.Command {
	var wait waitFlags
	cmd := &cobra.Command{
		Use:   "scale STACK/SERVICE=REPLICAS…",
		Short: "Set the number of replicas until a revision changes the service",
		Example: "  gitswarm scale shop/web=5\n" +
			"  gitswarm scale shop/web=5 shop/worker=2 --wait",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			stack, replicas, err := scaleOf(args)
			if err != nil {
				return err
			}
			return a.act(cmd.Context(), stack, "scale", map[string]any{"replicas": replicas}, wait)
		},
	}
	wait.add(cmd)
	return a.listFlags(cmd)
}

// scaleOf reads "shop/web=5 shop/worker=2".
func scaleOf(args []string) (string, map[string]int, error) {
	var targets []string
	replicas := map[string]int{}
	for _, arg := range args {
		target, number, ok := strings.Cut(arg, "=")
		_, service, hasService := strings.Cut(target, "/")
		n, err := strconv.Atoi(number)
		if !ok || !hasService || err != nil || n < 0 {
			return "", nil, fmt.Errorf("%q is no scale: give STACK/SERVICE=REPLICAS", arg)
		}
		targets = append(targets, target)
		replicas[service] = n
	}
	stack, _, err := splitTargets(targets)
	return stack, replicas, err
}
