package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gitswarm/gitswarm/internal/durable"
)

// The files of a node's identity. Key and certificate share one, so that no
// crash parts them.
const (
	nodeFile  = "node.pem"  // the key, the certificate, what leads to older roots
	trustFile = "trust.pem" // the roots that are trusted
)

// Vault seals a manager's key on the disk; internal/seal's Keyring is one.
type Vault interface {
	Seal(plain, context []byte) ([]byte, error)
	Open(sealed, context []byte) ([]byte, error)
}

var sealContext = []byte("gitswarm node key")

// ErrSealed is of a key that only its manager's vault opens.
var ErrSealed = errors.New("its key is sealed: unlock the manager first")

// Node is this machine's identity. Its methods may be called from any
// goroutine.
type Node struct {
	dir string

	mu      sync.RWMutex
	vault   Vault // nil: the key lies in clear, mode 0600
	current papers
}

// papers are a key and what others say of it.
type papers struct {
	key, chain, trust []byte // PEM
	peer              Peer
	leaf              *x509.Certificate
	certificate       tls.Certificate
	roots             *x509.CertPool
}

// Open reads the identity in dir. Errors: fs.ErrNotExist before the machine has
// joined a cluster, ErrSealed.
func Open(dir string) (*Node, error) { return OpenSealed(dir, nil) }

// OpenSealed is Open of a manager, whose vault keeps the key.
func OpenSealed(dir string, vault Vault) (*Node, error) {
	both, err := os.ReadFile(filepath.Join(dir, nodeFile))
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	trust, err := os.ReadFile(filepath.Join(dir, trustFile))
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	block, chain := pem.Decode(both)
	if block == nil {
		return nil, fmt.Errorf("read identity: %s holds no key: leave the cluster and join again", filepath.Join(dir, nodeFile))
	}
	key, err := unsealed(block, vault)
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	current, err := newPapers(key, chain, trust)
	if err != nil {
		return nil, fmt.Errorf("read identity in %s: %w", dir, err)
	}
	return &Node{dir: dir, vault: vault, current: current}, nil
}

func unsealed(block *pem.Block, vault Vault) ([]byte, error) {
	switch {
	case block.Type == blockKey:
		return pem.EncodeToMemory(block), nil
	case vault == nil:
		return nil, ErrSealed
	}
	return vault.Open(block.Bytes, sealContext)
}

// Create begins an identity in dir: what joining gave. All are PEM.
func Create(dir string, key, chain, trust []byte) (*Node, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("write identity: %w", err)
	}
	n := &Node{dir: dir}
	if err := n.Save(key, chain, trust); err != nil {
		return nil, err
	}
	return n, nil
}

// Save replaces the identity, on the disk and then for every handshake to come.
// Connections that are open stay open. It refuses a chain that is not of the
// key or not trusted; a trust that lost an older root is fine.
func (n *Node) Save(key, chain, trust []byte) error {
	next, err := newPapers(key, chain, trust)
	if err != nil {
		return fmt.Errorf("take identity: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.replace(next)
}

// replace needs the lock.
func (n *Node) replace(next papers) error {
	if err := n.write(next, n.vault); err != nil {
		return err
	}
	n.current = next
	return nil
}

// SaveTrust replaces the roots that are trusted, if they are others: a node
// whose certificate is of the newest root hears in this way that a rotation has
// ended. It refuses roots that do not cover the node's own certificate.
func (n *Node) SaveTrust(trust []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if bytes.Equal(n.current.trust, trust) {
		return nil
	}
	next, err := newPapers(n.current.key, n.current.chain, trust)
	if err != nil {
		return fmt.Errorf("take roots: %w", err)
	}
	return n.replace(next)
}

// Seal rewrites the key as the vault has it now: with its newest data key, or
// in clear for nil. Call it when the node becomes a manager, when it no longer
// is one, and before the vault forgets an old data key.
func (n *Node) Seal(vault Vault) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.write(n.current, vault); err != nil {
		return err
	}
	n.vault = vault
	return nil
}

// write puts the trust first: a node that trusts one root too many for a moment
// is well, one that shows a chain its own trust does not cover is not.
func (n *Node) write(p papers, vault Vault) error {
	key := p.key
	if vault != nil {
		sealed, err := vault.Seal(p.key, sealContext)
		if err != nil {
			return fmt.Errorf("seal node key: %w", err)
		}
		key = pem.EncodeToMemory(&pem.Block{Type: blockSealedKey, Bytes: sealed})
	}
	if err := durable.WriteFile(filepath.Join(n.dir, trustFile), p.trust); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(n.dir, nodeFile), append(bytes.Clone(key), p.chain...))
}

func newPapers(key, chain, trust []byte) (p papers, err error) {
	private, err := parseKey(key)
	if err != nil {
		return p, err
	}
	certificates, err := parseCertificates(chain)
	if err != nil {
		return p, err
	}
	roots, err := poolOf(trust)
	if err != nil {
		return p, err
	}

	leaf := certificates[0]
	if !private.PublicKey.Equal(leaf.PublicKey) {
		return p, errors.New("the certificate is of another key")
	}
	certificate := tls.Certificate{PrivateKey: private, Leaf: leaf}
	between := x509.NewCertPool()
	for _, c := range certificates {
		certificate.Certificate = append(certificate.Certificate, c.Raw)
		between.AddCert(c)
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		CurrentTime: leaf.NotBefore.Add(backdate), // whether it has expired is for peers to judge, by their clocks
	})
	if err != nil {
		return p, fmt.Errorf("the certificate is not of a trusted authority: %w", err)
	}
	peer, err := peerIn(leaf)
	return papers{
		key: bytes.Clone(key), chain: bytes.Clone(chain), trust: bytes.Clone(trust),
		peer: peer, leaf: leaf, certificate: certificate, roots: roots,
	}, err
}

func (n *Node) papers() papers {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.current
}

// Peer returns what this node's own certificate says.
func (n *Node) Peer() Peer { return n.papers().peer }

// Trust returns the roots that this node trusts, PEM.
func (n *Node) Trust() []byte { return bytes.Clone(n.papers().trust) }

// Expires returns when the certificate ends.
func (n *Node) Expires() time.Time { return n.papers().leaf.NotAfter }

// RenewAt returns when to renew the certificate: after 50 to 80 % of its life,
// by chance (from 0 to 1), and not before now.
func (n *Node) RenewAt(now time.Time, chance float64) time.Time {
	leaf := n.papers().leaf
	begun := leaf.NotBefore.Add(backdate)
	at := begun.Add(time.Duration((0.5 + 0.3*chance) * float64(leaf.NotAfter.Sub(begun))))
	if at.Before(now) {
		return now
	}
	return at
}
