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

	r, err := newStateReader(from)
	if err != nil {
		return nil, err
	}
	for {
		one, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = one.put(txn)
		}
		if err != nil {
			return nil, fmt.Errorf("read state: row %d: %w", r.rows, err)
		}
	}
	txn.Commit()
	return db, nil
}

// checkState reads what writeState wrote and keeps nothing of it. It returns
// its size in bytes.
func checkState(from io.Reader) (int64, error) {
	counted := &counter{from: from}
	r, err := newStateReader(counted)
	if err != nil {
		return 0, err
	}
	for {
		if err := r.frame(); err != nil {
			return 0, fmt.Errorf("read state: row %d: %w", r.rows, err)
		}
		if _, err := r.from.Peek(1); errors.Is(err, io.EOF) {
			break
		}
		r.rows++
	}
	if _, err := r.decoded(); !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read state: row %d is not the last: %w", r.rows, err)
	}
	return counted.bytes, nil
}

// counter counts the bytes that go through it.
type counter struct {
	from  io.Reader
	bytes int64
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.bytes += int64(n)
	return n, err
}

// stateReader reads rows.
type stateReader struct {
	from *bufio.Reader
	rows uint64       // that were read before data
	data bytes.Buffer // the row in its written form
}

func newStateReader(from io.Reader) (*stateReader, error) {
	r := &stateReader{from: bufio.NewReaderSize(from, 256<<10)}
	if format, err := r.from.ReadByte(); err != nil {
		return nil, fmt.Errorf("read state: %w", whole(err))
	} else if format != stateFormat {
		return nil, fmt.Errorf("read state: format %d: %w", format, errNewer)
	}
	return r, nil
}

// next returns the next row, or io.EOF after the last one.
func (r *stateReader) next() (row, error) {
	if err := r.frame(); err != nil {
		return row{}, err
	}
	one, err := r.decoded()
	if err == nil {
		r.rows++
	}
	return one, err
}

// frame reads one row as bytes. What they are, decoded says.
func (r *stateReader) frame() error {
	length, err := binary.ReadUvarint(r.from)
	if err != nil {
		return whole(err)
	}
	if length > 2*maxEntry { // a row holds no more than the commands that made it
		return fmt.Errorf("it has %d bytes", length)
	}
	r.data.Reset() // grows with what is there, whatever length says
	_, err = io.CopyN(&r.data, r.from, int64(length))
	return whole(err)
}

// decoded is the row that frame read. At the last one, which must say how many
// came before it and have nothing behind it, the error is io.EOF.
func (r *stateReader) decoded() (row, error) {
	var one row
	if err := codec.DecodeStrict(r.data.Bytes(), &one); err != nil {
		return row{}, fmt.Errorf("%w (%w)", errNewer, err)
	}
	switch {
	case (one.Meta != nil) != (r.rows == 0):
		return row{}, errors.New("the first row, and no other, must be the state's own")
	case one.Rows == nil:
		return one, nil
	case *one.Rows != r.rows:
		return row{}, fmt.Errorf("%d rows were read, not %d", r.rows, *one.Rows)
	}
	if _, err := r.from.ReadByte(); !errors.Is(err, io.EOF) {
		return row{}, fmt.Errorf("there is more after its end: %w", whole(err))
	}
	return one, io.EOF
}

// whole is the error where more was to come: the end is none.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
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
