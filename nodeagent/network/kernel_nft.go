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
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/userdata"
	mdnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// socketBuffer is large because the kernel acknowledges each message of a
// transaction: with the default size it answers ENOBUFS at some 200 services.
const socketBuffer = 32 << 20

// elementsPerMessage keeps a message's list of elements below the 64 KiB that a
// netlink attribute can be.
const elementsPerMessage = 400

func openTables(ns *os.File) (*nftables.Conn, error) {
	return nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(int(ns.Fd())),
		nftables.WithSockOptions(func(c *mdnetlink.Conn) error {
			return errors.Join(c.SetReadBuffer(socketBuffer), c.SetWriteBuffer(socketBuffer))
		}))
}

// transaction collects changes of tables: all of them happen, or none.
type transaction struct {
	conn *nftables.Conn
	ids  uint32 // of sets, unique within the transaction
}

// commit sends what was queued.
func (b *batch) commit() error {
	if b.tables == nil {
		return nil
	}
	conn := b.tables.conn
	b.tables = nil
	err := conn.Flush()
	if closing := conn.CloseLasting(); err == nil {
		err = closing
	}
	if err != nil {
		return fmt.Errorf("commit nftables transaction: %w", err)
	}
	return nil
}

// queue adds a change of a table to the transaction. It reports whether the
// change is one.
func (b *batch) queue(c change) (bool, error) {
	switch c.(type) {
	case addTable, delTable, addSet, delSet, addChain, delChain, setRules, addElements, delElements:
	default:
		return false, nil
	}
	if b.tables == nil {
		conn, err := openTables(b.ns)
		if err != nil {
			return true, fmt.Errorf("open nftables: %w", err)
		}
		b.tables = &transaction{conn: conn}
	}

	switch c := c.(type) {
	case addTable:
		b.tables.conn.AddTable(in4(c.table))
	case delTable:
		b.tables.conn.DelTable(in4(c.table))
	case addSet:
		b.tables.ids++
		s := setOf(c.table, c.name, c.set)
		s.ID = b.tables.ids
		return true, b.tables.conn.AddSet(s, nil)
	case delSet:
		b.tables.conn.DelSet(setOf(c.table, c.name, set{}))
	case addChain:
		b.tables.conn.AddChain(chainOf(c.table, c.name, c.chain))
	case delChain:
		b.tables.conn.DelChain(chainOf(c.table, c.name, chain{}))
	case setRules:
		b.tables.setRules(c)
	case addElements:
		return true, b.tables.elements(c.table, c.name, c.set, c.elements, b.tables.conn.SetAddElements)
	case delElements:
		return true, b.tables.elements(c.table, c.name, c.set, c.elements, b.tables.conn.SetDeleteElements)
	}
	return true, nil
}

func in4(name string) *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyIPv4, Name: name}
}

func setOf(table, name string, s set) *nftables.Set {
	made := &nftables.Set{Table: in4(table), Name: name}
	if len(s.Key) > 0 {
		made.KeyType, made.Concatenation = datatype(s.Key), len(s.Key) > 1
		made.KeyByteOrder = binaryutil.BigEndian
		if s.Key[0] == typeLink && len(s.Key) == 1 {
			made.KeyByteOrder = binaryutil.NativeEndian // or nft(8) prints its elements empty
		}
	}
	if len(s.Value) > 0 {
		made.IsMap, made.DataType = true, datatype(s.Value)
	}
	return made
}

func chainOf(table, name string, c chain) *nftables.Chain {
	made := &nftables.Chain{Table: in4(table), Name: name}
	if c.Hook == "" {
		return made
	}
	hooks := map[string]*nftables.ChainHook{
		"prerouting": nftables.ChainHookPrerouting, "input": nftables.ChainHookInput, "forward": nftables.ChainHookForward,
		"output": nftables.ChainHookOutput, "postrouting": nftables.ChainHookPostrouting,
	}
	made.Type, made.Hooknum = nftables.ChainType(c.Type), hooks[c.Hook]
	made.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(c.Priority))
	return made
}

func (t *transaction) setRules(c setRules) {
	at := chainOf(c.table, c.chain, chain{})
	if c.flush {
		t.conn.FlushChain(at)
	}
	for _, r := range c.rules {
		t.conn.AddRule(&nftables.Rule{Table: at.Table, Chain: at, Exprs: r.in,
			UserData: userdata.AppendString(nil, userdata.TypeComment, r.Sum)})
	}
}

func (t *transaction) elements(table, name string, s set, elements []element, do func(*nftables.Set, []nftables.SetElement) error) error {
	at := setOf(table, name, s)
	var all []nftables.SetElement
	for _, e := range elements {
		key, err := encode(s.Key, e.key)
		if err != nil {
			return err
		}
		made := nftables.SetElement{Key: key}
		switch {
		case len(s.Value) == 0:
		case s.Value[0] == typeVerdict:
			made.VerdictData = verdict(e.value)
		default:
			if made.Val, err = encode(s.Value, e.value); err != nil {
				return err
			}
		}
		all = append(all, made)
	}

	for len(all) > 0 {
		n := min(len(all), elementsPerMessage)
		if err := do(at, all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

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
	if now.table, err = readTable(conn, k.names.table()); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tables[space] = now
	return now.table.clone(), nil
}

// generationOf is a number that each transaction in the namespace changes.
func generationOf(ns *os.File) (uint32, error) {
	conn, err := mdnetlink.Dial(unix.NETLINK_NETFILTER, &mdnetlink.Config{NetNS: int(ns.Fd())})
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	replies, err := conn.Execute(mdnetlink.Message{
		Header: mdnetlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: mdnetlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
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

func readTable(conn *nftables.Conn, name string) (*table, error) {
	at, err := conn.ListTableOfFamily(name, nftables.TableFamilyIPv4)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list table %s: %w", name, err)
	}

	t := newTable()
	if err := observeChains(conn, at, t); err != nil {
		return nil, err
	}
	return t, observeSets(conn, at, t)
}

func observeChains(conn *nftables.Conn, at *nftables.Table, t *table) error {
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, c := range chains {
		if c.Table.Name != at.Name {
			continue
		}
		rules, err := conn.GetRules(at, c)
		if err != nil {
			return fmt.Errorf("list chain %s: %w", c.Name, err)
		}
		var made chain
		for _, r := range rules {
			sum, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			made.Rules = append(made.Rules, rule{Sum: sum})
		}
		t.Chains[c.Name] = made
	}
	return nil
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
