package store

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hashicorp/go-memdb"

	"github.com/gitswarm/gitswarm/swarm"
)

// The tables of the state. What lies in them is never changed in place: a
// change inserts another value, so a View needs no lock.
const (
	tableMeta      = "meta" // one row
	tableSources   = "sources"
	tableStacks    = "stacks"
	tableTasks     = "tasks"
	tableNodes     = "nodes"
	tableNetworks  = "networks"
	tableEndpoints = "endpoints"
	tableVolumes   = "volumes"
	tableGrants    = "grants" // one row
	tableEvents    = "events"
	tableCluster   = "cluster" // one row
	tableTokens    = "tokens"
	tableRemoved   = "removed"
)

// The indexes. Every table has the first.
const (
	byID       = "id"
	byIDPrefix = "id_prefix"
	byStack    = "stack"
	byNode     = "node"
)

// eventLimit is how many events are kept.
const eventLimit = 1000

// meta is what the state knows of itself.
type meta struct {
	Index   uint64    `cbor:"1,keyasint,omitempty"` // of the last command that was applied
	Now     time.Time `cbor:"2,keyasint,omitzero"`  // the cluster's time: the latest that any command carried
	Cluster string    `cbor:"3,keyasint,omitempty"` // random; the first Lead gives it
	Events  uint64    `cbor:"4,keyasint,omitempty"` // how many there have ever been
}

// grants is the row of all grants.
type grants struct {
	Grants []swarm.Grant `cbor:"1,keyasint,omitempty"`
}

// removed remembers a node that was removed: what it still says is not heard.
type removed struct {
	Node swarm.NodeID `cbor:"1,keyasint,omitempty"`
	At   time.Time    `cbor:"2,keyasint,omitzero"`
}

// numbered is an event with its place in the ring.
type numbered struct {
	Number uint64      `cbor:"1,keyasint,omitempty"`
	Event  swarm.Event `cbor:"2,keyasint,omitempty"`
}

func newDB() *memdb.MemDB {
	db, err := memdb.NewMemDB(schema())
	if err != nil {
		panic(fmt.Sprintf("store: %v", err)) // a mistake in schema, which every test meets
	}
	return db
}

func schema() *memdb.DBSchema {
	s := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	table(s, tableMeta, key[meta]{func(*meta) string { return tableMeta }})
	table(s, tableSources, key[swarm.Source]{func(v *swarm.Source) string { return string(v.ID) }})
	table(s, tableStacks, key[swarm.StackRecord]{func(v *swarm.StackRecord) string { return string(v.Name) }})
	table(s, tableNodes, key[swarm.Node]{func(v *swarm.Node) string { return string(v.ID) }})
	table(s, tableNetworks, key[swarm.AllocatedNetwork]{func(v *swarm.AllocatedNetwork) string { return string(v.ID) }})
	table(s, tableEndpoints, key[swarm.Endpoint]{func(v *swarm.Endpoint) string { return string(v.Service) }})
	table(s, tableVolumes, key[swarm.KeptVolume]{func(v *swarm.KeptVolume) string { return volumeKey(v.ID, v.Node) }})
	table(s, tableGrants, key[grants]{func(*grants) string { return tableGrants }})
	table(s, tableCluster, key[swarm.Cluster]{func(*swarm.Cluster) string { return tableCluster }})
	table(s, tableTokens, key[swarm.UserToken]{func(v *swarm.UserToken) string { return v.ID }})
	table(s, tableRemoved, key[removed]{func(v *removed) string { return string(v.Node) }})
	table(s, tableEvents, key[numbered]{func(v *numbered) string { return eventKey(v.Number) }})

	tasks := table(s, tableTasks, key[swarm.Task]{func(v *swarm.Task) string { return string(v.ID) }})
	further(tasks, byStack, key[swarm.Task]{func(v *swarm.Task) string { return string(v.Service.Stack()) }})
	further(tasks, byNode, key[swarm.Task]{func(v *swarm.Task) string { return string(v.Node) }})
	return s
}

func table(s *memdb.DBSchema, name string, id memdb.Indexer) *memdb.TableSchema {
	t := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
		byID: {Name: byID, Unique: true, Indexer: id},
	}}
	s.Tables[name] = t
	return t
}

func further(t *memdb.TableSchema, name string, indexer memdb.Indexer) {
	t.Indexes[name] = &memdb.IndexSchema{Name: name, AllowMissing: true, Indexer: indexer}
}

func volumeKey(id swarm.VolumeID, node swarm.NodeID) string {
	return string(id) + "\x00" + string(node)
}

// eventKey sorts as its number does.
func eventKey(number uint64) string {
	return string(binary.BigEndian.AppendUint64(nil, number))
}

// key indexes values of one type by a string. A NUL ends it, so that no key
// begins another and keys sort as their strings do.
type key[T any] struct{ of func(*T) string }

// FromObject implements memdb.Indexer. An empty key is not indexed.
func (k key[T]) FromObject(object any) (bool, []byte, error) {
	v, ok := object.(*T)
	if !ok {
		return false, nil, fmt.Errorf("index a %T", object)
	}
	text := k.of(v)
	return text != "", append([]byte(text), 0), nil
}

// FromArgs implements memdb.Indexer.
func (key[T]) FromArgs(args ...any) ([]byte, error) {
	return append([]byte(args[0].(string)), 0), nil
}

// PrefixFromArgs implements memdb.PrefixIndexer.
func (key[T]) PrefixFromArgs(args ...any) ([]byte, error) {
	return []byte(args[0].(string)), nil
}

// get returns the value of that id.
func get[T any](txn *memdb.Txn, table, id string) (T, bool) {
	found, err := txn.First(table, byID, id)
	if err != nil {
		panic(fmt.Sprintf("store: %v", err)) // no such table
	}
	if found == nil {
		var none T
		return none, false
	}
	return *found.(*T), true
}

// list returns the values of an index, by id.
func list[T any](txn *memdb.Txn, table, index string, args ...any) []T {
	found, err := txn.Get(table, index, args...)
	if err != nil {
		panic(fmt.Sprintf("store: %v", err)) // no such table or index
	}
	var values []T
	for v := found.Next(); v != nil; v = found.Next() {
		values = append(values, *v.(*T))
	}
	return values
}

func put[T any](txn *memdb.Txn, table string, v T) {
	if err := txn.Insert(table, &v); err != nil {
		panic(fmt.Sprintf("store: %v", err)) // no such table, or an empty id: commands with one are refused
	}
}

func remove[T any](txn *memdb.Txn, table string, v T) {
	if err := txn.Delete(table, &v); err != nil {
		panic(fmt.Sprintf("store: %v", err)) // it was not there: callers list first
	}
}
