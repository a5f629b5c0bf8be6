package seal

import (
	"encoding/hex"
	"fmt"
	"maps"
	"time"
)

// KeyID names a data key; it is derived from it and no secret.
type KeyID [idSize]byte

// String is the id in hex.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// HeaderSize is how many of the first sealed bytes KeyOf needs.
const HeaderSize = 1 + idSize

// keptFormer is how long a key stays after it ceased to seal: what was begun
// with it has reached the disk by then, where it is found.
const keptFormer = time.Hour

// KeyOf tells which data key was used, by the first HeaderSize bytes of what
// Seal or a Writer made. Its errors are ErrTruncated and ErrFormat.
func KeyOf(sealed []byte) (KeyID, error) {
	if len(sealed) < HeaderSize {
		return KeyID{}, fmt.Errorf("read the key's id: %w", ErrTruncated)
	}
	if sealed[0] != formatOnce && sealed[0] != formatStream {
		return KeyID{}, fmt.Errorf("read the key's id: format %d: %w", sealed[0], ErrFormat)
	}
	return KeyID(sealed[1:HeaderSize]), nil
}

// Current is the id of the key that seals.
func (k *Keyring) Current() KeyID { return k.state.Load().current().ID }

// Former are the ids of the keys that no longer seal, oldest first.
func (k *Keyring) Former() []KeyID {
	data := k.state.Load().data
	ids := make([]KeyID, 0, len(data)-1)
	for _, key := range data[:len(data)-1] {
		ids = append(ids, key.ID)
	}
	return ids
}

// Retire forgets former keys for good, all but those in use. Each of inUse
// collects the keys of what lies in one place on the disk, as Blobs.Keys and
// Store.Keys do: all places must be given. Keys that ceased to seal less than
// an hour before now stay in any case. It returns how many went.
func (k *Keyring) Retire(now time.Time, inUse ...func() (map[KeyID]bool, error)) (int, error) {
	if len(k.Former()) == 0 {
		return 0, nil
	}
	needed := make(map[KeyID]bool)
	for _, collect := range inUse {
		keys, err := collect()
		if err != nil {
			return 0, fmt.Errorf("retire keys of keyring %s: %w", k.path, err)
		}
		maps.Copy(needed, keys)
	}
	return k.retire(needed, now)
}

func (k *Keyring) retire(needed map[KeyID]bool, now time.Time) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()

	state := k.state.Load()
	next := &keys{cluster: state.cluster}
	for _, key := range state.data {
		ended, here := k.former[key.ID]
		young := here && now.Sub(ended) < keptFormer
		if key.ID == state.current().ID || needed[key.ID] || young {
			next.data = append(next.data, key)
		}
	}
	gone := len(state.data) - len(next.data)
	if gone == 0 {
		return 0, nil
	}
	if err := k.save(next, k.unlock); err != nil {
		return 0, fmt.Errorf("retire keys of keyring %s: %w", k.path, err)
	}
	return gone, nil
}

// noteFormer notes when a key ceased to seal. k.mu is held.
func (k *Keyring) noteFormer(id KeyID) {
	if k.former == nil {
		k.former = make(map[KeyID]time.Time)
	}
	k.former[id] = time.Now()
}
