package store

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/go-memdb"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/swarm"
)

// stateFormat is the first byte of a written state.
const stateFormat = 1

// row is one row of a written state: exactly one of its fields is set.
type row struct {
	Meta     *meta                   `cbor:"1,keyasint,omitempty"` // the first row
	Source   *swarm.Source           `cbor:"2,keyasint,omitempty"`
	Stack    *swarm.StackRecord      `cbor:"3,keyasint,omitempty"`
	Task     *swarm.Task             `cbor:"4,keyasint,omitempty"`
	Node     *swarm.Node             `cbor:"5,keyasint,omitempty"`
	Network  *swarm.AllocatedNetwork `cbor:"6,keyasint,omitempty"`
	Endpoint *swarm.Endpoint         `cbor:"7,keyasint,omitempty"`
	Volume   *swarm.KeptVolume       `cbor:"8,keyasint,omitempty"`
	Grants   *grants                 `cbor:"9,keyasint,omitempty"`
	Event    *numbered               `cbor:"10,keyasint,omitempty"`
	Rows     *uint64                 `cbor:"11,keyasint,omitempty"` // the last row: how many were before it
	Cluster  *swarm.Cluster          `cbor:"12,keyasint,omitempty"`
	Token    *swarm.UserToken        `cbor:"13,keyasint,omitempty"`
	Removed  *removed                `cbor:"14,keyasint,omitempty"`
}

// stateWriter writes rows, each with its length before it.
type stateWriter struct {
	to   *bufio.Writer
	rows uint64
	err  error
}

// writeState writes all that a transaction sees, table by table, by id: equal
// states give equal bytes.
func writeState(to io.Writer, txn *memdb.Txn) error {
	w := &stateWriter{to: bufio.NewWriterSize(to, 256<<10)}
	w.err = w.to.WriteByte(stateFormat)

	m, _ := get[meta](txn, tableMeta, tableMeta)
	w.row(row{Meta: &m})
	writeTable(w, txn, tableSources, func(v *swarm.Source) row { return row{Source: v} })
	writeTable(w, txn, tableStacks, func(v *swarm.StackRecord) row { return row{Stack: v} })
	writeTable(w, txn, tableTasks, func(v *swarm.Task) row { return row{Task: v} })
	writeTable(w, txn, tableNodes, func(v *swarm.Node) row { return row{Node: v} })
	writeTable(w, txn, tableNetworks, func(v *swarm.AllocatedNetwork) row { return row{Network: v} })
	writeTable(w, txn, tableEndpoints, func(v *swarm.Endpoint) row { return row{Endpoint: v} })
	writeTable(w, txn, tableVolumes, func(v *swarm.KeptVolume) row { return row{Volume: v} })
	writeTable(w, txn, tableGrants, func(v *grants) row { return row{Grants: v} })
	writeTable(w, txn, tableEvents, func(v *numbered) row { return row{Event: v} })
	writeTable(w, txn, tableCluster, func(v *swarm.Cluster) row { return row{Cluster: v} })
	writeTable(w, txn, tableTokens, func(v *swarm.UserToken) row { return row{Token: v} })
	writeTable(w, txn, tableRemoved, func(v *removed) row { return row{Removed: v} })
	rows := w.rows
	w.row(row{Rows: &rows})

	if w.err == nil {
		w.err = w.to.Flush()
	}
	if w.err != nil {
		return fmt.Errorf("write state: %w", w.err)
	}
	return nil
}

func writeTable[T any](w *stateWriter, txn *memdb.Txn, table string, wrap func(*T) row) {
	found, err := txn.Get(table, byID)
	if err != nil {
		w.err = errors.Join(w.err, err)
		return
	}
	for v := found.Next(); v != nil && w.err == nil; v = found.Next() {
		w.row(wrap(v.(*T)))
	}
}

func (w *stateWriter) row(r row) {
	if w.err != nil {
		return
	}
	data, err := codec.Encode(r)
	if err == nil {
		_, err = w.to.Write(binary.AppendUvarint(nil, uint64(len(data))))
	}
	if err == nil {
		_, err = w.to.Write(data)
	}
	w.rows++
	w.err = err
}

// readState reads what writeState wrote into a new state. It refuses what this
// build does not know, and whatever is not whole.
func readState(from io.Reader) (*memdb.MemDB, error) {
	db := newDB()
	txn := db.Txn(true)
	defer txn.Abort() // nothing, once it was committed

	r := bufio.NewReaderSize(from, 256<<10)
	if format, err := r.ReadByte(); err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	} else if format != stateFormat {
		return nil, fmt.Errorf("read state: format %d: %w", format, errNewer)
	}
	for rows := uint64(0); ; rows++ {
		last, err := readRow(r, txn, rows)
		if err != nil {
			return nil, fmt.Errorf("read state: row %d: %w", rows, err)
		}
		if last {
			break
		}
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read state: there is more after its end: %w", err)
	}
	txn.Commit()
	return db, nil
}

// readRow reads one row into the state, and reports whether it was the last.
func readRow(r *bufio.Reader, txn *memdb.Txn, before uint64) (bool, error) {
	length, err := binary.ReadUvarint(r)
	if err != nil {
		return false, err
	}
	if length > 2*maxEntry { // a row holds no more than the commands that made it
		return false, fmt.Errorf("it has %d bytes", length)
	}
	var data bytes.Buffer // grows with what is there, whatever length says
	if _, err := io.CopyN(&data, r, int64(length)); err != nil {
		return false, err
	}
	var one row
	if err := codec.DecodeStrict(data.Bytes(), &one); err != nil {
		return false, fmt.Errorf("%w (%w)", errNewer, err)
	}
	if (one.Meta != nil) != (before == 0) {
		return false, errors.New("the first row, and no other, must be the state's own")
	}
	if one.Rows != nil {
		if *one.Rows != before {
			return false, fmt.Errorf("%d rows were read, not %d", before, *one.Rows)
		}
		return true, nil
	}
	return false, one.put(txn)
}

func (r row) put(txn *memdb.Txn) error {
	switch {
	case r.Meta != nil:
		return txn.Insert(tableMeta, r.Meta)
	case r.Source != nil:
		return txn.Insert(tableSources, r.Source)
	case r.Stack != nil:
		return txn.Insert(tableStacks, r.Stack)
	case r.Task != nil:
		return txn.Insert(tableTasks, r.Task)
	case r.Node != nil:
		return txn.Insert(tableNodes, r.Node)
	case r.Network != nil:
		return txn.Insert(tableNetworks, r.Network)
	case r.Endpoint != nil:
		return txn.Insert(tableEndpoints, r.Endpoint)
	case r.Volume != nil:
		return txn.Insert(tableVolumes, r.Volume)
	case r.Grants != nil:
		return txn.Insert(tableGrants, r.Grants)
	case r.Event != nil:
		return txn.Insert(tableEvents, r.Event)
	case r.Cluster != nil:
		return txn.Insert(tableCluster, r.Cluster)
	case r.Token != nil:
		return txn.Insert(tableTokens, r.Token)
	case r.Removed != nil:
		return txn.Insert(tableRemoved, r.Removed)
	}
	return errors.New("it is empty")
}
