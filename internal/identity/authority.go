package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// Lives of certificates.
const (
	NodeLife = 90 * 24 * time.Hour // of a node's, unless the cluster says otherwise
	MinLife  = time.Hour           // of a node's
	rootLife = 20 * 365 * 24 * time.Hour
)

// maxRoots is how many roots are trusted at once: rotations that have begun
// while none could end.
const maxRoots = 5

// NewAuthority makes a cluster's first authority.
func NewAuthority(cluster string, now time.Time) (swarm.Authority, error) {
	root, err := newRoot(cluster, now)
	if err != nil {
		return swarm.Authority{}, fmt.Errorf("make authority of cluster %s: %w", cluster, err)
	}
	root.Trust = root.Certificate
	return root, nil
}

func newRoot(cluster string, now time.Time) (a swarm.Authority, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return a, err
	}
	if a.Key, err = encodeKey(key); err != nil {
		return a, err
	}
	serial, err := newSerial()
	if err != nil {
		return a, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "gitswarm-authority-" + serial.Text(36), Organization: []string{cluster}}, // no two share a name
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(rootLife),
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	a.Certificate = encodeCertificate(der)
	return a, err
}

// Rotate makes a new root and has the old one sign it, so that whoever trusts
// the old one alone trusts its certificates. Both are trusted until Finish. A
// rotation may begin before the last one has ended.
func Rotate(a swarm.Authority, cluster string, now time.Time) (swarm.Authority, error) {
	next, err := rotate(a, cluster, now)
	if err != nil {
		return swarm.Authority{}, fmt.Errorf("rotate authority of cluster %s: %w", cluster, err)
	}
	return next, nil
}

func rotate(a swarm.Authority, cluster string, now time.Time) (swarm.Authority, error) {
	old, err := openAuthority(a)
	if err != nil {
		return swarm.Authority{}, err
	}
	if roots, err := parseCertificates(a.Trust); err != nil || len(roots) >= maxRoots {
		return swarm.Authority{}, errors.Join(err, fmt.Errorf("%d rotations have begun and none has ended: wait until every node has renewed its certificate, or remove those that are gone", len(roots)-1))
	}
	next, err := newRoot(cluster, now)
	if err != nil {
		return swarm.Authority{}, err
	}
	root, err := parseCertificate(next.Certificate)
	if err != nil {
		return swarm.Authority{}, err
	}

	serial, err := newSerial()
	if err != nil {
		return swarm.Authority{}, err
	}
	cross := *root
	cross.SerialNumber, cross.NotAfter = serial, earlier(root.NotAfter, old.root.NotAfter)
	der, err := x509.CreateCertificate(rand.Reader, &cross, old.root, root.PublicKey, old.key)
	if err != nil {
		return swarm.Authority{}, err
	}
	next.Trust = bytes.Join([][]byte{a.Trust, next.Certificate}, nil)
	next.Cross = append(encodeCertificate(der), a.Cross...) // nodes that slept through two rotations follow both
	return next, nil
}

// Finish drops every root but the newest: each node must have a certificate of
// it (Peer.Issuer equals IssuerOf), or it is shut out.
func Finish(a swarm.Authority) swarm.Authority {
	a.Trust, a.Cross = a.Certificate, nil
	return a
}

// Rotating reports whether an older root is still trusted.
func Rotating(a swarm.Authority) bool { return len(a.Cross) > 0 }

// IssuerOf is the Peer.Issuer of certificates that the authority signs now, or
// empty for one that can't be read.
func IssuerOf(a swarm.Authority) string {
	root, err := parseCertificate(a.Certificate)
	if err != nil {
		return ""
	}
	return hex.EncodeToString(root.SubjectKeyId)
}

// Issue signs the key of a certificate request: what the request says of its
// owner counts for nothing, p does. It returns PEM: the certificate, and what
// leads from it to older roots while a rotation is under way. A life of 0 means
// NodeLife; it is MinLife at least, and ends when the root's does.
func Issue(a swarm.Authority, csr []byte, p Peer, life time.Duration, now time.Time) ([]byte, error) {
	chain, err := issue(a, csr, p, life, now)
	if err != nil {
		return nil, fmt.Errorf("issue certificate of node %s: %w", p.Node, err)
	}
	return chain, nil
}

func issue(a swarm.Authority, csr []byte, p Peer, life time.Duration, now time.Time) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	public, err := parseRequest(csr)
	if err != nil {
		return nil, err
	}
	ca, err := openAuthority(a)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	if life == 0 {
		life = NodeLife
	}

	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: string(p.Node), OrganizationalUnit: []string{p.Role}, Organization: []string{p.Cluster}},
		NotBefore:    now.Add(-backdate),
		NotAfter:     earlier(now.Add(max(life, MinLife)), ca.root.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},

		BasicConstraintsValid: true,
	}
	if p.Role == swarm.RoleManager {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		template.DNSNames = []string{p.Role} // what clients ask for in place of a host
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.root, public, ca.key)
	if err != nil {
		return nil, err
	}
	return append(encodeCertificate(der), a.Cross...), nil
}

type authority struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

func openAuthority(a swarm.Authority) (authority, error) {
	root, err := parseCertificate(a.Certificate)
	if err != nil {
		return authority{}, fmt.Errorf("read authority: %w", err)
	}
	key, err := parseKey(a.Key)
	if err != nil {
		return authority{}, fmt.Errorf("read authority: %w", err)
	}
	return authority{root: root, key: key}, nil
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // RFC 5280: positive, 20 bytes at most
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
