package main

import (
	"fmt"
	"os"

	"github.com/gitswarm/gitswarm/gitsync/compose"
	"github.com/gitswarm/gitswarm/nodeagent/runtime"
)

// runChild runs this process as what a daemon started it for, if it is one of
// its children, and then never returns. It comes before everything else: a
// child reads no flags and no configuration.
func runChild() {
	runtime.Main() // a container's shim or init
	if len(os.Args) > 1 && os.Args[1] == compose.ChildArgument {
		if err := compose.ServeChild(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}
