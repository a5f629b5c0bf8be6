package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

// shown makes a client of an attacker: it shows what it likes and believes
// everybody.
func shown(t testing.TB, key, chain []byte, protocol string) *tls.Config {
	t.Helper()
	config := Unverified(protocol)
	if chain == nil {
		return config
	}
	private, err := parseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificates, err := parseCertificates(chain)
	if err != nil {
		t.Fatal(err)
	}
	certificate := tls.Certificate{PrivateKey: private}
	for _, c := range certificates {
		certificate.Certificate = append(certificate.Certificate, c.Raw)
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
	return config
}

// signedBy makes a manager's certificate that another node signed.
func signedBy(t testing.TB, key, chain []byte) (leafKey, leafChain []byte) {
	t.Helper()
	signer, err := parseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	parents, err := parseCertificates(chain)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ecdsa.GenerateKey(signer.Curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		Subject: pkix.Name{CommonName: "m9", Organization: []string{"c1"}, OrganizationalUnit: []string{swarm.RoleManager}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parents[0], &private.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if leafKey, err = encodeKey(private); err != nil {
		t.Fatal(err)
	}
	return leafKey, append(encodeCertificate(der), chain...)
}

func TestWhoeverIsNotAManagerOfThisClusterIsRefusedAndLoggedOnce(t *testing.T) {
	a, now := newAuthority(t, "c1"), time.Now()
	type papers struct{ key, chain []byte }
	with := func(a swarm.Authority, p Peer, at time.Time) papers {
		key, chain := issued(t, a, p, 90*24*time.Hour, at)
		return papers{key, chain}
	}
	foreign := manager("m2")
	foreign.Cluster = "c2"
	good := with(a, manager("m2"), now)
	var forged papers
	forged.key, forged.chain = signedBy(t, good.key, good.chain)
	const untrusted, dated = "its certificate is of an authority that is not trusted", "its certificate has expired, or is not valid yet"

	for claim, test := range map[string]struct {
		papers   papers
		protocol string
		change   func(*tls.Config)
		cause    string
	}{
		"no certificate":                       {papers{}, ProtocolRaft, nil, ErrNoCertificate.Error()},
		"a worker's certificate":               {with(a, worker("w1"), now), ProtocolRaft, nil, ErrRole.Error()},
		"a worker's certificate at the API":    {with(a, worker("w1"), now), ProtocolAPI, nil, ErrRole.Error()},
		"an expired certificate":               {with(a, manager("m2"), now.Add(-91*24*time.Hour)), ProtocolRaft, nil, dated},
		"a certificate of the day after":       {with(a, manager("m2"), now.Add(24*time.Hour)), ProtocolRaft, nil, dated},
		"another cluster of the same root":     {with(a, foreign, now), ProtocolWire, nil, ErrCluster.Error()},
		"a root of its own, of the same names": {with(newAuthority(t, "c1"), manager("m2"), now), ProtocolRaft, nil, untrusted},
		"signed by another manager":            {forged, ProtocolRaft, nil, untrusted},
		"the authority's own certificate":      {papers{a.Key, a.Certificate}, ProtocolRaft, nil, ErrMalformed.Error()},
		"TLS 1.2": {good, ProtocolRaft, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
			causeOther},
		"no protocol":      {good, "", func(c *tls.Config) { c.NextProtos = nil }, ErrProtocol.Error()},
		"another protocol": {good, "irc", nil, causeOther},
		"HTTP/1.1":         {good, "http/1.1", nil, ErrProtocol.Error()},
		"a very long chain": {good, ProtocolRaft, func(c *tls.Config) {
			show := c.GetClientCertificate
			c.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
				long, err := show(info)
				both := *long
				both.Certificate = append(both.Certificate, bytes.Repeat([]byte("x"), 200<<10))
				return &both, err
			}
		}, errTooMuch.Error()},
	} {
		t.Run(claim, func(t *testing.T) {
			address, _, log := openPort(t, newNode(t, a, manager("m1")))
			config := shown(t, test.papers.key, test.papers.chain, test.protocol)
			if test.change != nil {
				test.change(config)
			}
			for range 3 {
				if err := reach(t, address, config); err == nil {
					t.Error("it is served")
				}
			}
			logged(t, log, test.cause)
			if n := strings.Count(log.String(), "\n"); n != 1 {
				t.Errorf("it is logged %d times:\n%s", n, log)
			}
		})
	}
}

func TestANodeTalksToNoManagerButItsOwn(t *testing.T) {
	a, now := newAuthority(t, "c1"), time.Now()
	foreign := manager("m2")
	foreign.Cluster = "c2"
	n := newNode(t, a, worker("w1"))
	for claim, server := range map[string]struct {
		authority swarm.Authority
		peer      Peer
		issued    time.Time
	}{
		"a worker that listens":            {a, worker("w2"), now},
		"an expired certificate":           {a, manager("m2"), now.Add(-91 * 24 * time.Hour)},
		"another cluster of the same root": {a, foreign, now},
		"another root":                     {newAuthority(t, "c1"), manager("m2"), now},
	} {
		t.Run(claim, func(t *testing.T) {
			key, chain := issued(t, server.authority, server.peer, 0, server.issued)
			config := shown(t, key, chain, ProtocolWire)
			certificate, err := config.GetClientCertificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*certificate}, NextProtos: []string{ProtocolWire}})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go echo(l)
			if err := reach(t, l.Addr().String(), n.Client(ProtocolWire, swarm.RoleManager)); err == nil {
				t.Error("it is believed")
			}
		})
	}
}

func TestARemovedNodeIsNotAdmitted(t *testing.T) {
	a := newAuthority(t, "c1")
	n := newNode(t, a, manager("m1"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := newNode(t, a, worker("w1"))
	log := serve(t, l, n, func(p *Port) {
		p.Admit = func(peer Peer, protocol string) error {
			if peer.Node == "w1" && protocol == ProtocolWire {
				return errRemoved
			}
			return nil
		}
	})
	if err := reach(t, l.Addr().String(), gone.Client(ProtocolWire, swarm.RoleManager)); err == nil {
		t.Error("it is served")
	}
	logged(t, log, errRemoved.Error())
	if err := reach(t, l.Addr().String(), newNode(t, a, worker("w2")).Client(ProtocolWire, swarm.RoleManager)); err != nil {
		t.Errorf("another node: %v", err)
	}
}
