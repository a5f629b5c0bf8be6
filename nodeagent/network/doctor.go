package network

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/google/nftables"
)

// Finding is what Doctor says of one thing.
type Finding struct {
	Name   string // "ip forwarding"
	OK     bool
	Text   string // what was found
	Remedy string // what to do, if not OK
}

// Doctor looks for what keeps the network of this host from working. It
// changes nothing.
func (n *Network) Doctor() []Finding {
	all := []Finding{n.examineTables()}
	_ = inside(n.options.HostNetNS, func() error { // the host's sysctls
		all = append(all, examineForwarding(), examineBridgeFilter(), examineConntrack())
		return nil
	})
	return append(all, n.examineForwardChains()...)
}

func (n *Network) examineTables() Finding {
	f := Finding{Name: "nftables", Text: "the kernel has it", OK: true}
	if _, err := n.kernel.observe(""); err != nil {
		f.OK, f.Text = false, err.Error()
		f.Remedy = "load the modules nf_tables, nft_chain_nat, nft_fib_ipv4, nft_numgen, nft_reject_ipv4 and nft_masq, and run as root"
	}
	return f
}

func examineForwarding() Finding {
	f := Finding{Name: "ip forwarding", OK: readProc("net/ipv4/ip_forward") == "1", Text: "on"}
	if !f.OK {
		f.Text, f.Remedy = "off: no published port and no container reaches the outside", "sysctl -w net.ipv4.ip_forward=1; the daemon does it with the first container"
	}
	return f
}

func examineBridgeFilter() Finding {
	f := Finding{Name: "bridge filter", OK: readProc("net/bridge/bridge-nf-call-iptables") != "1", Text: "bridged packets pass no IP rules"}
	if !f.OK {
		f.Text = "bridged packets pass the IP rules too: it costs a fifth of their speed, and foreign rules can drop them"
		f.Remedy = "sysctl -w net.bridge.bridge-nf-call-iptables=0, unless another program needs it"
	}
	return f
}

func examineConntrack() Finding {
	count, _ := strconv.Atoi(readProc("net/netfilter/nf_conntrack_count"))
	limit, _ := strconv.Atoi(readProc("net/netfilter/nf_conntrack_max"))
	f := Finding{Name: "connection tracking", OK: limit == 0 || count < limit/10*8, Text: fmt.Sprintf("%d of %d connections", count, limit)}
	if !f.OK {
		f.Remedy = fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d: a full table drops new connections", limit*4)
	}
	return f
}

func readProc(key string) string {
	b, _ := os.ReadFile("/proc/sys/" + key)
	return strings.TrimSpace(string(b))
}

// examineForwardChains names the foreign chains that drop what they do not
// know. An accept in our table does not overrule them: each table has its say.
func (n *Network) examineForwardChains() []Finding {
	ns, err := os.Open(n.options.HostNetNS)
	if err != nil {
		return nil
	}
	defer ns.Close()
	conn, err := openTables(ns)
	if err != nil {
		return nil
	}
	defer func() { _ = conn.CloseLasting() }()
	chains, err := conn.ListChains()
	if err != nil {
		return nil
	}

	var all []Finding
	for _, c := range chains {
		if c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward || c.Policy == nil || *c.Policy != nftables.ChainPolicyDrop {
			continue
		}
		family := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyINet: "inet"}[c.Table.Family]
		if family == "" {
			continue
		}
		chain := strings.Join([]string{family, c.Table.Name, c.Name}, " ")
		if c.Table.Name == "filter" && hasChain(chains, "DOCKER-USER") {
			chain = "ip filter DOCKER-USER"
		}
		all = append(all, Finding{
			Name: "forward chain " + strings.Join([]string{family, c.Table.Name, c.Name}, " "),
			Text: "drops what it does not know, containers' packets included",
			Remedy: fmt.Sprintf(`nft insert rule %s iifname "%sb*" accept && nft insert rule %s oifname "%sb*" accept`,
				chain, n.options.Prefix, chain, n.options.Prefix),
		})
	}
	return append(all, legacyTables()...)
}

func hasChain(chains []*nftables.Chain, name string) bool {
	for _, c := range chains {
		if c.Name == name && c.Table.Name == "filter" && c.Table.Family == nftables.TableFamilyIPv4 {
			return true
		}
	}
	return false
}

// legacyTables warns of rules that only the old iptables can list.
func legacyTables() []Finding {
	b, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if err != nil || !strings.Contains(string(b), "filter") {
		return nil
	}
	return []Finding{{
		Name:   "iptables-legacy",
		Text:   "a filter table is loaded: " + cmp.Or(strings.Join(strings.Fields(string(b)), ", "), "none"),
		Remedy: "iptables-legacy -S FORWARD must accept what the bridges forward",
	}}
}
