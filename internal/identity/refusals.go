package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Refusals logs that connections were refused: once for each cause and minute,
// with the address that came first and how many came since. The causes are
// sentences of this program, so nothing that a stranger sent is in the log and
// their number is bounded.
type Refusals struct {
	log  *slog.Logger
	mu   sync.Mutex
	seen map[string]*seen
}

type seen struct {
	logged time.Time
	more   int // not logged since
}

const logEvery = time.Minute

// NewRefusals logs to log.
func NewRefusals(log *slog.Logger) *Refusals {
	return &Refusals{log: log, seen: make(map[string]*seen)}
}

// Note logs a refusal if its cause was not logged for a minute. The cause is a
// constant of the program.
func (r *Refusals) Note(remote net.Addr, cause string) {
	now := time.Now()
	r.mu.Lock()
	s := r.seen[cause]
	if s == nil {
		s = &seen{}
		r.seen[cause] = s
	}
	if !s.logged.IsZero() && now.Sub(s.logged) < logEvery {
		s.more++
		r.mu.Unlock()
		return
	}
	more := s.more
	s.logged, s.more = now, 0
	r.mu.Unlock()
	r.log.Warn("connection was refused", "cause", cause, "remote", remote.String(), "more", more)
}

const causeOther = "it offers no TLS 1.3, or no protocol of this port"

// causeOf says in words of this program why a handshake ended.
func causeOf(err error) string {
	var (
		invalid  x509.CertificateInvalidError
		unknown  x509.UnknownAuthorityError
		record   tls.RecordHeaderError
		alert    tls.AlertError
		timeout  net.Error
		verified *tls.CertificateVerificationError
		admitted refused
	)
	if errors.As(err, &admitted) {
		return admitted.Error()
	}
	for _, known := range []error{ErrNoCertificate, ErrRole, ErrCluster, ErrProtocol, ErrMalformed, errTooMuch, errNobody} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired, or is not valid yet"
	case errors.As(err, &unknown):
		return "its certificate is of an authority that is not trusted"
	case errors.As(err, &verified):
		return "its certificate is not valid"
	case errors.As(err, &alert):
		return "it refused this manager's certificate or protocol"
	case errors.As(err, &record):
		return "it does not speak TLS"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "its handshake took too long"
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return "it broke the handshake off"
	}
	return causeOther
}
