package network

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// dumpAttempts bounds how often a list is asked for that changes meanwhile.
const dumpAttempts = 20

// steady asks the kernel for a list again while it says that the list changed
// under its hands (NLM_F_DUMP_INTR): what it gave then may lack what is there.
func steady[T any](ask func() (T, error)) (answer T, err error) {
	for range dumpAttempts {
		if answer, err = ask(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return answer, err
}

// linkNamed finds a link by its name.
func linkNamed(handle *netlink.Handle, name string) (netlink.Link, error) {
	return steady(func() (netlink.Link, error) { return handle.LinkByName(name) })
}
