package store

import (
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"
)

// watch makes a follower stand for election soon after it has lost its leader.
// Raft itself looks only when a timer ends that it began at some earlier time:
// up to three times later than it could, and no follower votes for another
// before both have looked. The part left to chance keeps two followers from
// standing at once.
func (s *Store) watch() {
	for {
		s.heed()
		limit := patience + rand.N(patience/2)
		moment := limit
		if _, leader := s.raft.LeaderWithID(); leader != "" && s.raft.State() == raft.Follower {
			if silent := time.Since(s.raft.LastContact()); silent < limit {
				moment = limit - silent
			} else {
				s.stand()
			}
		}
		select {
		case <-time.After(moment):
		case <-s.closed:
			return
		}
	}
}

// heed makes snapshots as often as the cluster's settings say, once they say
// something.
func (s *Store) heed() {
	cluster, _ := s.View().Cluster()
	conf := s.raft.ReloadableConfig()
	if wanted := cluster.Settings.SnapshotInterval; wanted != 0 && wanted != conf.SnapshotThreshold {
		conf.SnapshotThreshold = wanted
		_ = s.raft.ReloadConfig(conf) // valid: only the threshold differs, and any is
	}
}

// stand tells a follower to look at once whether its leader is gone, and to
// stand for election then. Raft looks when its timers are made shorter.
func (s *Store) stand() {
	conf := s.raft.ReloadableConfig()
	for _, conf.HeartbeatTimeout = range []time.Duration{patience + 1, patience} {
		conf.ElectionTimeout = conf.HeartbeatTimeout
		_ = s.raft.ReloadConfig(conf) // valid: only these two differ, and they are no shorter than the lease
	}
}
