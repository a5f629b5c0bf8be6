package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	mdnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// seen is a table as it was at a generation of its namespace's rules.
type seen struct {
	inode      uint64 // of the namespace: each counts its own generations
	generation uint32
	table      *table
}

// observeTable reads the table back, nil if there is none. While no one has
// changed any table of the namespace since the last time, that is one message.
func (k *linux) observeTable(space string, ns *os.File) (*table, error) {
	conn, err := openTables(ns)
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	defer func() { _ = conn.CloseLasting() }()
	info, err := ns.Stat()
	if err != nil {
		return nil, err
	}
	generation, err := generationOf(ns)
	if err != nil {
		return nil, fmt.Errorf("ask for the generation of rules: %w", err)
	}

	now := seen{inode: info.Sys().(*syscall.Stat_t).Ino, generation: generation}
	k.mu.Lock()
	old := k.tables[space]
	k.mu.Unlock()
	if old.inode == now.inode && old.generation == now.generation {
		return old.table.clone(), nil
	}
	if now.table, err = readTable(conn, ns, k.names.table()); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tables[space] = now
	return now.table.clone(), nil
}

// generationOf is a number that each transaction in the namespace changes.
func generationOf(ns *os.File) (uint32, error) {
	replies, err := execute(ns, unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC, nil)
	if err != nil {
		return 0, err
	}
	for _, reply := range replies {
		attributes, err := mdnetlink.NewAttributeDecoder(reply.Data[4:])
		if err != nil {
			return 0, err
		}
		attributes.ByteOrder = binary.BigEndian
		for attributes.Next() {
			if attributes.Type() == unix.NFTA_GEN_ID {
				return attributes.Uint32(), nil
			}
		}
	}
	return 0, errors.New("the kernel did not say")
}

func readTable(conn *nftables.Conn, ns *os.File, name string) (*table, error) {
	at, err := conn.ListTableOfFamily(name, nftables.TableFamilyIPv4)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list table %s: %w", name, err)
	}

	t := newTable()
	if err := observeChains(conn, ns, name, t); err != nil {
		return nil, err
	}
	return t, observeSets(conn, at, t)
}

func observeChains(conn *nftables.Conn, ns *os.File, name string, t *table) error {
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, c := range chains {
		if c.Table.Name == name {
			t.Chains[c.Name] = chain{}
		}
	}
	return observeRules(ns, name, t)
}

// observeRules reads the rules of all chains in one go.
func observeRules(ns *os.File, name string, t *table) error {
	attributes := mdnetlink.NewAttributeEncoder()
	attributes.String(unix.NFTA_RULE_TABLE, name)
	body, err := attributes.Encode()
	if err != nil {
		return err
	}
	replies, err := execute(ns, unix.NFT_MSG_GETRULE, mdnetlink.Dump, unix.NFPROTO_IPV4, body)
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	for _, reply := range replies {
		attributes, err := mdnetlink.NewAttributeDecoder(reply.Data[4:])
		if err != nil {
			return fmt.Errorf("read rule: %w", err)
		}
		var at, sum string
		for attributes.Next() {
			switch attributes.Type() {
			case unix.NFTA_RULE_CHAIN:
				at = attributes.String()
			case unix.NFTA_RULE_USERDATA:
				sum, _ = userdata.GetString(attributes.Bytes(), userdata.TypeComment)
			}
		}
		c := t.Chains[at]
		c.Rules = append(c.Rules, rule{Sum: sum})
		t.Chains[at] = c
	}
	return nil
}

// execute asks nftables something that the library has no call for.
func execute(ns *os.File, message int, flags mdnetlink.HeaderFlags, family byte, body []byte) ([]mdnetlink.Message, error) {
	conn, err := mdnetlink.Dial(unix.NETLINK_NETFILTER, &mdnetlink.Config{NetNS: int(ns.Fd())})
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return conn.Execute(mdnetlink.Message{
		Header: mdnetlink.Header{Type: mdnetlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message), Flags: mdnetlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, body...),
	})
}

// shapes are the types of all sets that this package makes, by name. The
// kernel tells types only as numbers.
func shapes() map[string]set {
	all := map[string]set{}
	for _, t := range []*table{innerTable(Endpoint{}, nil), hostTable()} {
		maps.Copy(all, t.Sets)
	}
	return all
}

func observeSets(conn *nftables.Conn, at *nftables.Table, t *table) error {
	sets, err := conn.GetSets(at)
	if err != nil {
		return fmt.Errorf("list sets: %w", err)
	}
	known := shapes()
	for _, s := range sets {
		shape := known[s.Name]
		made := set{Key: shape.Key, Value: shape.Value, Elements: map[string]string{}}
		elements, err := conn.GetSetElements(s)
		if err != nil {
			return fmt.Errorf("list set %s: %w", s.Name, err)
		}
		for _, e := range elements {
			key, value, err := decodeElement(shape, e)
			if err != nil {
				return fmt.Errorf("read set %s: %w", s.Name, err)
			}
			made.Elements[key] = value
		}
		t.Sets[s.Name] = made
	}
	return nil
}

func decodeElement(shape set, e nftables.SetElement) (key, value string, err error) {
	if len(shape.Key) == 0 {
		return string(e.Key), "", nil // not ours: it goes with its set
	}
	if key, err = decode(shape.Key, e.Key); err != nil || len(shape.Value) == 0 {
		return key, "", err
	}
	if shape.Value[0] == typeVerdict {
		return key, decodeVerdict(e.Val), nil
	}
	value, err = decode(shape.Value, e.Val)
	return key, value, err
}
