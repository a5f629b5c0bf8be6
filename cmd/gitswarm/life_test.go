package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/internal/identity"
	"github.com/gitswarm/gitswarm/swarm"
)

// beginner is a daemon that has begun a cluster on the disk and runs nothing.
func beginner(t *testing.T) (*daemon, membership, swarm.Cluster) {
	t.Helper()
	d := &daemon{config: daemonConfig{DataDir: t.TempDir(), RunDir: t.TempDir(), Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}}
	place, err := d.config.place().settle("")
	if err != nil {
		t.Fatal(err)
	}
	now, err := d.found(place, "", swarm.ClusterSettings{})
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := d.config.founding(now.keyring)
	if err != nil {
		t.Fatal(err)
	}
	return d, now, *cluster
}

// again is what the machine is after the next start of its daemon.
func again(t *testing.T, d *daemon) membership {
	t.Helper()
	now, err := d.remember()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.forgetManager(now); err != nil { // as keepManager does first
		t.Fatal(err)
	}
	return now
}

func absent(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there (%v)", filepath.Base(path), err)
		}
	}
}

func TestALeaveThatWasCutShortIsCarriedThrough(t *testing.T) {
	d, _, _ := beginner(t)
	if err := errors.Join(os.Mkdir(d.config.raftDir(), 0o700), os.WriteFile(d.config.leavingFile(), nil, 0o600),
		os.RemoveAll(d.config.identityDir())); err != nil { // the crash
		t.Fatal(err)
	}
	if now := again(t, d); now.self != nil {
		t.Errorf("the machine that left is %+v again", now.self.Peer())
	}
	absent(t, append(d.config.managerPaths(), d.config.placeFile(), d.config.leavingFile())...)
}

func TestAnInitThatWasCutShortLeavesNothingToTheNextCluster(t *testing.T) {
	d, _, _ := beginner(t)
	if err := os.RemoveAll(d.config.identityDir()); err != nil { // the crash
		t.Fatal(err)
	}
	if now := again(t, d); now.self != nil {
		t.Errorf("the machine is %+v", now.self.Peer())
	}
	absent(t, d.config.managerPaths()...)
}

func TestACrashDuringAPromotionLeavesAManager(t *testing.T) {
	d, now, _ := beginner(t)
	if err := errors.Join(now.self.Seal(nil), os.Remove(d.config.keysFile()), os.Remove(d.config.foundingFile())); err != nil { // the crash
		t.Fatal(err)
	}
	for range 2 {
		if now := again(t, d); !now.manages() {
			t.Errorf("the machine with a manager's certificate is none: %+v", now)
		}
	}
}

func TestACrashDuringADemotionLeavesAWorker(t *testing.T) {
	d, now, cluster := beginner(t)
	key, csr, err := identity.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := identity.Issue(cluster.Authority, csr, identity.Peer{Node: now.node(), Role: swarm.RoleWorker, Cluster: cluster.ID}, time.Hour, time.Now())
	if err == nil {
		err = now.self.Save(key, chain, cluster.Authority.Trust) // its key still sealed by the manager's, as a crash leaves it
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		now := again(t, d)
		if now.manages() || now.self == nil || now.self.Peer().Role != swarm.RoleWorker {
			t.Errorf("the machine with a worker's certificate is %+v", now)
		}
		absent(t, d.config.managerPaths()...)
	}
}

func TestAManagerWithoutItsKeysSaysSo(t *testing.T) {
	d, _, _ := beginner(t)
	if err := errors.Join(os.Mkdir(d.config.raftDir(), 0o700), os.RemoveAll(d.config.identityDir()), os.Remove(d.config.keysFile())); err != nil {
		t.Fatal(err)
	}
	if now, err := d.remember(); err == nil {
		t.Errorf("it goes on as %+v beside a log that nobody can read", now)
	}
}

func TestADaemonIsWhereItWasUnlessItsFlagsChange(t *testing.T) {
	flags := place{Listen: "127.0.0.1:0"}
	kept := place{Listen: "127.0.0.1:4000", Advertise: "10.0.0.7:4000", Flags: &flags, Managers: []string{"10.0.0.1:2377"}}
	for _, c := range []struct {
		flags                    place
		changed                  bool
		listen, advertise, error string
	}{
		{flags: flags, listen: "127.0.0.1:4000", advertise: "10.0.0.7:4000"},
		{flags: place{}, listen: "127.0.0.1:4000", advertise: "10.0.0.7:4000"},
		{flags: place{Listen: "127.0.0.1:0", Advertise: "10.0.0.8"}, changed: true, listen: "127.0.0.1:4000", advertise: "10.0.0.8:4000"},
	} {
		moved, changed, err := kept.moved(c.flags)
		if err != nil || changed != c.changed || moved.Listen != c.listen || moved.Advertise != c.advertise || len(moved.Managers) != 1 {
			t.Errorf("with %+v: %+v, %v, %v", c.flags, moved, changed, err)
		}
	}
	moved, changed, err := kept.moved(place{Listen: "127.0.0.2:0"})
	if err != nil || !changed || moved.Listen == kept.Listen || moved.Advertise == kept.Advertise {
		t.Errorf("listens on another port: %+v, %v, %v", moved, changed, err)
	}
}
