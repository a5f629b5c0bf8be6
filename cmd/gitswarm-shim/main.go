// Command gitswarm-shim is the process that stays with each container, and the
// init process in those that ask for one. The daemon's own binary can be both
// too; this one holds nothing else, so it starts sooner and takes less memory.
// It is run by containerd, never by hand.
package main

import (
	"fmt"
	"os"

	"github.com/gitswarm/gitswarm/nodeagent/runtime/shim"
)

func main() {
	shim.Main()
	fmt.Fprintln(os.Stderr, "gitswarm-shim is started by gitswarm: install it beside the gitswarm binary")
	os.Exit(2)
}
