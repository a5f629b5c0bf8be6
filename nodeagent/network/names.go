package network

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"regexp"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

var (
	prefixPattern = regexp.MustCompile(`^[a-z][a-z0-9]{0,3}$`)
	taskPattern   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$`)
)

// names gives what belongs to one daemon its names in the kernel, so that
// several daemons share a host. Equal ids give equal names in every run, which
// is how a restarted daemon knows its own again.
type names struct{ prefix string }

// table is the nftables table, of the same name in every namespace.
func (n names) table() string { return "gitswarm_" + n.prefix }

// bridge and veth are at most 15 bytes, the longest a link may have.
func (n names) bridge(id swarm.NetworkID) string { return n.prefix + "b" + short(string(id)) }

func (n names) veth(task swarm.TaskID, network swarm.NetworkID) string {
	return n.prefix + "v" + short(string(task)+" "+string(network))
}

// group is the number that links get which are to be removed together.
func (n names) group() uint32 { return 0x67730000 | fnv32(n.prefix)&0xffff }

// alias marks a link as this daemon's and tells people what it is for.
func (n names) alias(what string) string { return n.owner() + what }

func (n names) owner() string { return "gitswarm " + n.prefix + ": " }

// space is the file name of a task's namespace. "~" appears in no id.
func (n names) space(task swarm.TaskID) (string, error) {
	if len(task) > 200 || !taskPattern.MatchString(string(task)) {
		return "", fmt.Errorf("task id %q: only letters, digits and ._-/ are allowed, at most 200", task)
	}
	return strings.ReplaceAll(string(task), "/", "~"), nil
}

// short is 50 bits of a digest in ten letters.
func short(id string) string {
	sum := sha256.Sum256([]byte(id))
	return strings.ToLower(base32.HexEncoding.EncodeToString(sum[:10]))[:10]
}
