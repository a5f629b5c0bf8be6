package identity

import (
	"bytes"
	"encoding/pem"
	"testing"
	"time"
)

func FuzzParseToken(f *testing.F) {
	f.Add(newToken(f, newAuthority(f, "c1")))
	f.Add(tokenPrefix + "-")
	f.Add("GSTKN-1-00000000000000000000000000000000000000000000000000-0000000000000000000000000000000")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err == nil && token.Reveal() != text {
			t.Errorf("%q was read as %q", text, token.Reveal())
		}
	})
}

// FuzzCertificates takes data for PEM, and for what a PEM block holds.
func FuzzCertificates(f *testing.F) {
	a := newAuthority(f, "c1")
	key, chain := issued(f, a, manager("m1"), 0, time.Now())
	_, csr, err := NewRequest()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{a.Trust, chain, csr, key, append(bytes.Clone(chain), a.Trust...)} {
		block, _ := pem.Decode(seed)
		f.Add(seed)
		f.Add(block.Bytes)
	}
	token := mustParse(f, newToken(f, a))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, text := range [][]byte{data, encodeCertificate(data)} {
			if root, err := token.Root(text); err == nil && !bytes.Equal(root, a.Certificate) {
				t.Errorf("another root passes for the token's: %s", root)
			}
			if p, err := newPapers(key, text, a.Trust); err == nil && p.peer.check() != nil {
				t.Errorf("taken for an identity: %+v", p.peer)
			}
			_, _ = newPapers(key, chain, text)
		}
		for _, text := range [][]byte{data, pem.EncodeToMemory(&pem.Block{Type: blockRequest, Bytes: data})} {
			if public, err := parseRequest(text); err == nil && public == nil {
				t.Errorf("a request without a key: %q", text)
			}
		}
		_, _ = newPapers(data, chain, a.Trust)
	})
}
