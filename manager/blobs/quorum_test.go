package blobs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitswarm/gitswarm/internal/codec"
	"github.com/gitswarm/gitswarm/internal/seal"
	"github.com/gitswarm/gitswarm/manager/blobs"
	"github.com/gitswarm/gitswarm/swarm"
)

// link is the way to one manager. It can be cut, held or made to lie.
type link struct {
	to    *blobs.Blobs
	cut   atomic.Bool
	lie   atomic.Bool
	hold  atomic.Pointer[chan struct{}] // calls wait until it is closed, or for ever
	calls atomic.Int64                  // that got through
	stuck atomic.Int64                  // that wait now
}

var errCut = errors.New("no route to m1")

func (l *link) pass(ctx context.Context) error {
	if hold := l.hold.Load(); hold != nil {
		l.stuck.Add(1)
		defer l.stuck.Add(-1)
		select {
		case <-*hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if l.cut.Load() {
		return errCut
	}
	l.calls.Add(1)
	return nil
}

func (l *link) PutBlob(ctx context.Context, digest swarm.Digest, data []byte) error {
	if err := l.pass(ctx); err != nil {
		return err
	}
	return l.to.PutBlob(ctx, digest, data)
}

func (l *link) GetBlob(ctx context.Context, digest swarm.Digest) ([]byte, error) {
	if err := l.pass(ctx); err != nil {
		return nil, err
	}
	data, err := l.to.GetBlob(ctx, digest)
	if l.lie.Load() {
		return append(slices.Clone(data), '!'), nil
	}
	return data, err
}

// group are the blobs of several managers of one cluster, each with its own
// disk and keys.
type group struct {
	t       testing.TB
	dirs    []string
	keys    []*seal.Keyring
	members []*blobs.Blobs
	links   []*link // to each of them
}

func newGroup(t testing.TB, n int) *group {
	g := &group{t: t, links: make([]*link, n)}
	root := t.TempDir()
	for i := range n {
		keyring, err := seal.Create(filepath.Join(root, fmt.Sprint("keys", i)))
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			if err := keyring.SetCluster(g.keys[0].ClusterKey()); err != nil {
				t.Fatal(err)
			}
		}
		g.keys = append(g.keys, keyring)
		g.dirs = append(g.dirs, filepath.Join(root, fmt.Sprint("m", i)))
		g.links[i] = &link{}
		g.members = append(g.members, g.open(i))
	}
	return g
}

func (g *group) open(i int) *blobs.Blobs {
	g.t.Helper()
	b, err := blobs.New(blobs.Config{Dir: g.dirs[i], Keyring: g.keys[i], Peers: func() []blobs.Peer {
		var others []blobs.Peer
		for j, l := range g.links {
			if j != i {
				others = append(others, l)
			}
		}
		return others
	}})
	if err != nil {
		g.t.Fatal(err)
	}
	g.links[i].to = b
	g.t.Cleanup(func() { b.Close() })
	return b
}

// here reports which members have the blob on their own disk, whole.
func (g *group) here(digest swarm.Digest) string {
	var have []string
	for i, b := range g.members {
		if _, err := b.GetBlob(context.Background(), digest); err == nil {
			have = append(have, fmt.Sprint("m", i))
		}
	}
	return strings.Join(have, " ")
}

func TestAPutReturnsOnceAMajorityHasItAndTheRestFollows(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	g := newGroup(t, 3)
	open := make(chan struct{})
	g.links[2].hold.Store(&open)

	data := []byte("content")
	digest, err := g.members[0].Put(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	if have := g.here(digest); have != "m0 m1" {
		t.Errorf("%s have it", have)
	}
	copy(data, "CHANGED") // its owner's again
	close(open)
	for deadline := time.Now().Add(30 * time.Second); g.here(digest) != "m0 m1 m2"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("only %s have it", g.here(digest))
		}
	}
}

func TestTooFewManagersAreNoSuccess(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	g := newGroup(t, 5)
	for _, i := range []int{2, 3, 4} {
		g.links[i].cut.Store(true)
	}
	_, err := g.members[0].Put(t.Context(), []byte("content"))
	if !errors.Is(err, blobs.ErrQuorum) || !errors.Is(err, errCut) {
		t.Errorf("two of five: %v", err)
	}
	g.links[2].cut.Store(false)
	put(t, g.members[0], "content")

	never := make(chan struct{})
	for _, l := range g.links {
		l.hold.Store(&never)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := g.members[0].Put(ctx, []byte("other")); !errors.Is(err, blobs.ErrQuorum) || !errors.Is(err, context.Canceled) {
		t.Errorf("nobody answers: %v", err)
	}
}

// TestWhatIsPutAgainGoesToOthersOnlyBeforeTheyCouldSweepIt: unchanged content
// is put at every commit.
func TestWhatIsPutAgainGoesToOthersOnlyBeforeTheyCouldSweepIt(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	g := newGroup(t, 3)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b, err := blobs.New(blobs.Config{Dir: dir, Keyring: g.keys[0], Peers: func() []blobs.Peer { return []blobs.Peer{g.links[1], g.links[2]} }})
		if err != nil {
			t.Fatal(err)
		}
		sent := func() int64 {
			synctest.Wait()
			return g.links[1].calls.Load() + g.links[2].calls.Load()
		}
		for range 10 {
			put(t, b, "content")
		}
		if n := sent(); n != 2 {
			t.Errorf("ten puts were %d messages to two managers", n)
		}
		time.Sleep(31 * time.Minute)
		put(t, b, "content")
		if n := sent(); n != 4 {
			t.Errorf("half an hour later: %d messages", n)
		}
		b.Close()
	})
}

func TestWhatIsPutAgainGoesToManagersThatTookTheOthersPlaces(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 5)
	var voters []blobs.Peer
	b, err := blobs.New(blobs.Config{Dir: t.TempDir(), Keyring: g.keys[0], Peers: func() []blobs.Peer { return voters }})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	put := func() swarm.Digest {
		digest, err := b.Put(t.Context(), []byte("hello"))
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	voters = []blobs.Peer{g.links[1], g.links[2]}
	put()
	voters = []blobs.Peer{g.links[3], g.links[4]} // nothing was put while there were fewer
	digest := put()
	if here := g.here(digest); !strings.Contains(here, "m3") && !strings.Contains(here, "m4") {
		t.Errorf("of the managers that there are, this one alone has it: others are %q", here)
	}
}

func TestSlowManagersHoldBoundedMemory(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	g := newGroup(t, 3)
	never := make(chan struct{})
	g.links[2].hold.Store(&never)
	for i := range 10 {
		put(t, g.members[0], fmt.Sprint(i)+strings.Repeat("x", 8<<20))
	}
	for deadline := time.Now().Add(30 * time.Second); g.links[2].stuck.Load() != 7; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d times 8 MiB wait for a slow manager, want 7: what fits into 64 MiB", g.links[2].stuck.Load())
		}
	}
	g.members[0].Close()
	if n := g.links[2].stuck.Load(); n != 0 {
		t.Errorf("%d wait after Close", n)
	}
	if _, err := g.members[0].Put(t.Context(), []byte("late")); !errors.Is(err, blobs.ErrQuorum) {
		t.Errorf("after Close: %v", err)
	}
}

func TestADamagedBlobIsFetchedAnewAndNeverServed(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	g := newGroup(t, 3)
	content := strings.Repeat("content ", 20_000)
	digest := put(t, g.members[0], content)
	secret, err := g.members[0].PutSecret(t.Context(), []byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	g.members[1].Fill(t.Context(), []swarm.Digest{digest, secret})
	for _, damage := range []func(path string){
		func(path string) { flip(t, path, 100) },
		func(path string) { os.Truncate(path, 70_000) },
		func(path string) { os.Truncate(path, 0) },
		func(path string) { os.Remove(path) },
	} {
		for _, path := range files(t, g.dirs[0]) {
			damage(path)
		}
		g.links[2].lie.Store(true) // and is not believed
		if got, err := g.members[0].Get(t.Context(), digest); err != nil || string(got) != content {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if got, err := g.members[0].Get(t.Context(), secret); err != nil || string(got) != "hunter2" {
			t.Errorf("the secret is %q, %v", got, err)
		}
		if _, err := g.members[0].GetBlob(t.Context(), digest); err != nil {
			t.Errorf("the disk was not healed: %v", err)
		}
	}

	flip(t, files(t, g.dirs[0])[0], 100)
	flip(t, files(t, g.dirs[0])[1], 100)
	g.links[1].cut.Store(true)
	if got, err := g.members[0].Get(t.Context(), digest); !errors.Is(err, blobs.ErrDamaged) || !errors.Is(err, errCut) || got != nil {
		t.Errorf("damaged here, a liar there: %d bytes, %v", len(got), err)
	}
}

func flip(t testing.TB, path string, at int) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[min(at, len(data)-1)] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAWipedManagerFillsItself(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	g := newGroup(t, 3)
	digests := []swarm.Digest{""} // as what is not set in the state
	for i := range 50 {
		digests = append(digests, put(t, g.members[i%2], fmt.Sprint("blob ", i)))
	}
	if err := errors.Join(g.members[2].Close(), os.RemoveAll(g.dirs[2])); err != nil {
		t.Fatal(err)
	}
	g.members[2] = g.open(2)
	if n, err := g.members[2].Fill(t.Context(), digests); err != nil || n != 50 {
		t.Fatalf("%d came, %v", n, err)
	}
	if all, err := g.members[2].All(); err != nil || len(all) != 50 {
		t.Errorf("it has %d, %v", len(all), err)
	}
	if n, err := g.members[2].Fill(t.Context(), digests); err != nil || n != 0 {
		t.Errorf("again: %d came, %v", n, err)
	}

	nowhere := codec.DigestBytes([]byte("nowhere"))
	digests = append(digests, nowhere, put(t, g.members[0], "one more"))
	os.RemoveAll(filepath.Join(g.dirs[2]))
	g.members[2] = g.open(2)
	n, err := g.members[2].Fill(t.Context(), digests)
	if n != 51 || !errors.Is(err, blobs.ErrMissing) || !strings.Contains(err.Error(), string(nowhere)) {
		t.Errorf("one is nowhere: %d came, %v", n, err)
	}
}

func TestAManagerTakesOnlyWhatItCanVerify(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	g := newGroup(t, 2)
	ctx, member := t.Context(), g.members[1]
	stranger, err := seal.Create(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	for digest, data := range map[swarm.Digest]string{
		codec.DigestBytes([]byte("a")):          "b",
		stranger.SecretDigest([]byte("hunter")): "hunter",
		"sha256:../../../etc/passwd":            "root",
		"":                                      "",
	} {
		if err := member.PutBlob(ctx, digest, []byte(data)); err == nil {
			t.Errorf("%q was kept as %q", data, digest)
		}
	}
	if all, _ := member.All(); len(all) != 0 {
		t.Errorf("it keeps %v", all)
	}
	secret := g.keys[0].SecretDigest([]byte("hunter"))
	if err := member.PutBlob(ctx, secret, []byte("hunter")); err != nil {
		t.Errorf("its own cluster's: %v", err)
	}
}

func TestHoweverManyAskABlobComesOnce(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	g := newGroup(t, 2)
	digest := put(t, g.members[1], "content")
	os.RemoveAll(g.dirs[0])
	open := make(chan struct{})
	g.members[0] = g.open(0)
	g.links[1].hold.Store(&open)
	before := g.links[1].calls.Load()

	gave, cancel := context.WithCancel(t.Context())
	results := make(chan error, 101)
	go func() {
		_, err := g.members[0].Get(gave, digest)
		results <- err
	}()
	for g.links[1].stuck.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel() // the first that asked gives up
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	for range 100 {
		go func() {
			data, err := g.members[0].Get(t.Context(), digest)
			if err == nil && string(data) != "content" {
				err = fmt.Errorf("got %q", data)
			}
			results <- err
		}()
	}
	close(open)
	for range 100 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if n := g.links[1].calls.Load() - before; n != 1 {
		t.Errorf("it came %d times", n)
	}
}

func TestADeadManagerDelaysNoAnswerForLong(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	g := newGroup(t, 3)
	digest := put(t, g.members[1], "content")
	g.members[2].Fill(t.Context(), []swarm.Digest{digest})
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		dead := &link{to: g.members[1]}
		dead.hold.Store(&never)
		b, err := blobs.New(blobs.Config{Dir: dir, Keyring: g.keys[0], Peers: func() []blobs.Peer { return []blobs.Peer{dead, &link{to: g.members[2]}, dead} }})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := b.Get(t.Context(), digest); err != nil {
			t.Error(err)
		}
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("it took %v", waited)
		}
		b.Close()
	})
}

func TestNothingIsSweptWhileABackupIsTaken(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	b, dir, _ := open(t)
	digest := put(t, b, "old")
	past := time.Now().Add(-2 * time.Hour)
	os.Chtimes(files(t, dir)[0], past, past)
	release, other := b.Hold(), b.Hold()
	for _, end := range []func(){release, release, other} {
		if n, err := b.Sweep(func(swarm.Digest) bool { return false }); err != nil || n != 0 || !b.Has(digest) {
			t.Errorf("%d went, %v", n, err)
		}
		end()
	}
	if n, err := b.Sweep(func(swarm.Digest) bool { return false }); err != nil || n != 1 {
		t.Errorf("afterwards %d went, %v", n, err)
	}
}

func TestResealedBlobsNeedNoOldKey(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	b, dir, keyring := open(t)
	var digests []swarm.Digest
	for i := range 5 {
		digests = append(digests, put(t, b, fmt.Sprint("blob ", i)))
	}
	old := keyring.Current()
	past := time.Now().Add(-2 * time.Hour).Truncate(time.Second)
	os.Chtimes(files(t, dir)[0], past, past)
	damaged := files(t, dir)[4]
	flip(t, damaged, 40)
	if err := keyring.Rotate(); err != nil {
		t.Fatal(err)
	}

	if keys, err := b.Keys(); err != nil || !keys[old] || keys[keyring.Current()] {
		t.Errorf("needed before: %v, %v", keys, err)
	}
	if n, err := b.Reseal(t.Context()); err != nil || n != 4 {
		t.Errorf("%d were sealed anew, %v", n, err)
	}
	if keys, _ := b.Keys(); !keys[old] {
		t.Error("a blob that could not be read lost its key")
	}
	if info, err := os.Stat(files(t, dir)[0]); err != nil || !info.ModTime().Equal(past) {
		t.Errorf("its age is %v, %v", info.ModTime(), err)
	}
	os.Remove(damaged)
	keys, err := b.Keys()
	if err != nil || keys[old] || !keys[keyring.Current()] {
		t.Errorf("needed after: %v, %v", keys, err)
	}
	if n, err := keyring.Retire(time.Now().Add(2*time.Hour), b.Keys); err != nil || n != 1 {
		t.Errorf("%d keys retired, %v", n, err)
	}
	read := 0
	for _, digest := range digests {
		if _, err := b.Get(t.Context(), digest); err == nil {
			read++
		}
	}
	if read != 4 {
		t.Errorf("%d of 4 blobs open", read)
	}
	if n, err := b.Reseal(t.Context()); err != nil || n != 0 {
		t.Errorf("again: %d, %v", n, err)
	}
}

// TestWhatWasAcknowledgedIsReadableFromEveryMajority: managers come and go at
// random; disks are wiped one at a time and filled again.
func TestWhatWasAcknowledgedIsReadableFromEveryMajority(t *testing.T) {
	t.Parallel() // most of it waits for the disk
	chance := rand.New(rand.NewPCG(3, 3))
	g := newGroup(t, 3)
	acknowledged := make(map[swarm.Digest][]byte)
	for step := range 40 {
		down, at := chance.IntN(4), chance.IntN(3) // 3: nobody
		for i, l := range g.links {
			l.cut.Store(i == down)
		}
		if at == down {
			g.wipe(at, slices.Collect(maps.Keys(acknowledged)))
			continue
		}
		data := fmt.Appendf(nil, "blob %d", chance.IntN(40))
		digest, err := g.members[at].Put(t.Context(), data)
		if err != nil {
			t.Fatalf("step %d: two managers are a majority: %v", step, err)
		}
		acknowledged[digest] = data
		for digest, data := range acknowledged {
			if got, err := g.members[at].Get(t.Context(), digest); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("step %d: m%d, with m%d down, reads %q, %v", step, at, down, got, err)
			}
		}
	}
	if len(acknowledged) < 10 {
		t.Errorf("only %d blobs: the test shows little", len(acknowledged))
	}
}

// wipe empties a manager's disk, and fills it again from the others.
func (g *group) wipe(i int, digests []swarm.Digest) {
	g.t.Helper()
	if err := errors.Join(g.members[i].Close(), os.RemoveAll(g.dirs[i])); err != nil {
		g.t.Fatal(err)
	}
	g.members[i] = g.open(i)
	g.links[i].cut.Store(false)
	if _, err := g.members[i].Fill(g.t.Context(), digests); err != nil {
		g.t.Fatal(err)
	}
}
