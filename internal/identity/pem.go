package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"

	"github.com/gitswarm/gitswarm/swarm"
)

// MaxPEM is the most bytes of a chain, a trust or a certificate request that
// are looked at.
const MaxPEM = 64 << 10

const (
	blockCertificate = "CERTIFICATE"
	blockRequest     = "CERTIFICATE REQUEST"
	blockKey         = "PRIVATE KEY"
	blockSealedKey   = "GITSWARM SEALED PRIVATE KEY"
)

// NewRequest makes a key and asks for a certificate of it. Both are PEM.
func NewRequest() (key, csr []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make node key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	if err != nil {
		return nil, nil, fmt.Errorf("request certificate: %w", err)
	}
	key, err = encodeKey(private)
	return key, pem.EncodeToMemory(&pem.Block{Type: blockRequest, Bytes: der}), err
}

// NodeOf names the node whose first request this is: by its key, so that a
// machine that asks twice, because the answer was lost, joins once, and no
// other machine can ask for its name.
func NodeOf(csr []byte) (swarm.NodeID, error) {
	public, err := parseRequest(csr)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("name node: %w", err)
	}
	sum := sha256.Sum256(der)
	return swarm.NodeID(base36(sum[:16])), nil
}

// base36 writes bytes as a number in lower case, padded to the width of the
// largest one.
func base36(data []byte) string {
	width := len(new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(8*len(data))), big.NewInt(1)).Text(36))
	return fmt.Sprintf("%0*s", width, new(big.Int).SetBytes(data).Text(36))
}

func parseRequest(csr []byte) (*ecdsa.PublicKey, error) {
	block, err := firstBlock(csr, blockRequest)
	if err != nil {
		return nil, fmt.Errorf("read certificate request: %w", err)
	}
	request, err := x509.ParseCertificateRequest(block)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("read certificate request: %w", err)
	}
	public, ok := request.PublicKey.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, errors.New("read certificate request: its key is not ECDSA P-256")
	}
	return public, nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der})
}

func parseCertificate(data []byte) (*x509.Certificate, error) {
	der, err := firstBlock(data, blockCertificate)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// parseCertificates reads one certificate or more, and nothing else.
func parseCertificates(data []byte) (all []*x509.Certificate, err error) {
	if len(data) > MaxPEM {
		return nil, fmt.Errorf("read certificates: more than %d KiB", MaxPEM>>10)
	}
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != blockCertificate {
			return nil, fmt.Errorf("read certificates: there is a %.40q among them", block.Type)
		}
		one, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read certificates: %w", err)
		}
		all, data = append(all, one), rest
	}
	if len(all) == 0 {
		return nil, errors.New("read certificates: there is none")
	}
	return all, nil
}

// poolOf reads roots: certificates of authorities.
func poolOf(trust []byte) (*x509.CertPool, error) {
	roots, err := parseCertificates(trust)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, root := range roots {
		if !root.IsCA {
			return nil, errors.New("read trusted certificates: one of them is no authority's")
		}
		pool.AddCert(root)
	}
	return pool, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: der}), nil
}

func parseKey(data []byte) (*ecdsa.PrivateKey, error) {
	der, err := firstBlock(data, blockKey)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("read key: it is damaged") // the cause might quote it
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return nil, errors.New("read key: it is not ECDSA P-256")
	}
	return private, nil
}

// firstBlock returns the content of data's first PEM block, which must be of
// the kind.
func firstBlock(data []byte, kind string) ([]byte, error) {
	if len(data) > MaxPEM {
		return nil, fmt.Errorf("more than %d KiB", MaxPEM>>10)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("no PEM block %q", kind)
	}
	return block.Bytes, nil
}
