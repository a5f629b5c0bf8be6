package network

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/userdata"
	mdnetlink "github.com/mdlayher/netlink"
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
