package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
)

// Authority is what a user's client needs to know a manager by.
type Authority struct {
	Certificates string   `json:"certificates" doc:"PEM; believe those alone whose pin you know"`
	Pins         []string `json:"pins"`
}

func (s *Server) authority(context.Context, *none) (*body[Authority], error) {
	trust := s.cluster().Authority.Trust
	return answer(Authority{Certificates: string(trust), Pins: pins(trust)})
}

// PinOf names a certificate: "sha256:" and the digest of its DER form.
func PinOf(der []byte) string {
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// pins names the certificates of a PEM bundle, the oldest first.
func pins(bundle []byte) []string {
	var found []string
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		found = append(found, PinOf(block.Bytes))
	}
	return found
}

// Pinned picks the certificate that a pin names from a bundle that nobody
// vouches for. Its error says that there is none.
func Pinned(bundle []byte, pin string) ([]byte, error) {
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if PinOf(block.Bytes) == pin {
			return slices.Clone(pem.EncodeToMemory(block)), nil
		}
	}
	return nil, fmt.Errorf("no certificate has pin %s", pin)
}
