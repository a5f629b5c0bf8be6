package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/gitswarm/gitswarm/swarm"
)

// putCluster writes what all nodes share. It must have been made from the row
// as it is; the first one makes the row.
func (ch *change) putCluster(next swarm.Cluster) error {
	old, known := get[swarm.Cluster](ch.txn, tableCluster, tableCluster)
	if next.Version != old.Version {
		return fmt.Errorf("put cluster: version %d, not %d: %w", old.Version, next.Version, ErrStale)
	}
	if ch.meta.Cluster == "" {
		ch.meta.Cluster = next.ID
	}
	next.ID, next.Version = ch.meta.Cluster, ch.index
	put(ch.txn, tableCluster, next)
	ch.marks.everything = true
	if known {
		for _, text := range clusterChanges(old, next) {
			ch.event(swarm.Event{Kind: "cluster", Text: text + ch.byWhom()})
		}
	}
	return nil
}

// clusterChanges says what is different, without a word of any secret.
func clusterChanges(old, next swarm.Cluster) []string {
	var said []string
	say := func(text string, changed bool) {
		if changed {
			said = append(said, text)
		}
	}
	a, b := old.Settings, next.Settings
	say("cluster settings were changed", !slices.Equal(a.AddressPool, b.AddressPool) || a.CertExpiry != b.CertExpiry || a.TaskHistory != b.TaskHistory ||
		a.SnapshotInterval != b.SnapshotInterval || a.Heartbeat != b.Heartbeat || a.DataPort != b.DataPort)
	say("the join token for workers was changed", old.Tokens.Worker != next.Tokens.Worker)
	say("the join token for managers was changed", old.Tokens.Manager != next.Tokens.Manager)
	say("the certificate authority was changed", !bytes.Equal(old.Authority.Certificate, next.Authority.Certificate))
	say("the trusted roots were changed", bytes.Equal(old.Authority.Certificate, next.Authority.Certificate) && !bytes.Equal(old.Authority.Trust, next.Authority.Trust))
	switch {
	case len(old.UnlockKey) == 0 && len(next.UnlockKey) > 0:
		say("autolock was turned on", true)
	case len(old.UnlockKey) > 0 && len(next.UnlockKey) == 0:
		say("autolock was turned off", true)
	default:
		say("the unlock key was changed", !bytes.Equal(old.UnlockKey, next.UnlockKey))
	}
	return said
}

// putToken writes a user's token. An id is given once; the same token again
// changes nothing.
func (ch *change) putToken(token swarm.UserToken) error {
	switch {
	case token.ID == "" || len(token.Hash) == 0:
		return errors.New("put token: it has no id or no hash")
	case !slices.Contains([]swarm.UserRole{swarm.UserViewer, swarm.UserCI, swarm.UserOperator, swarm.UserAdmin}, token.Role):
		return fmt.Errorf("put token: there is no role %q: it is viewer, ci, operator or admin", token.Role)
	}
	if old, known := get[swarm.UserToken](ch.txn, tableTokens, token.ID); known {
		if !bytes.Equal(old.Hash, token.Hash) {
			return fmt.Errorf("put token %s: another has that id: %w", token.ID, ErrStale)
		}
		return nil
	}
	if token.Created.IsZero() {
		token.Created = ch.now
	}
	put(ch.txn, tableTokens, token)
	ch.event(swarm.Event{Kind: "operator", Text: "token " + token.ID + " (" + string(token.Role) + ") was made" + forWhom(token) + ch.byWhom()})
	return nil
}

// dropToken forgets a user's token.
func (ch *change) dropToken(id string) error {
	token, known := get[swarm.UserToken](ch.txn, tableTokens, id)
	if !known {
		return fmt.Errorf("drop token %q: %w: `gitswarm token ls` lists the tokens", id, ErrNotFound)
	}
	remove(ch.txn, tableTokens, token)
	ch.event(swarm.Event{Kind: "operator", Text: "token " + id + " was dropped" + forWhom(token) + ch.byWhom()})
	return nil
}

// forWhom is " for ana".
func forWhom(token swarm.UserToken) string {
	if token.Name == "" {
		return ""
	}
	return " for " + token.Name
}
