package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"unicode"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// explain sorts an error by who can mend it, and says how.
func explain(ref name.Reference, err error) error {
	host := registryKey(ref.Context().RegistryStr())
	var (
		status  *transport.Error
		network net.Error
		dns     *net.DNSError
	)
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, errForeign), errors.Is(err, errTooLarge):
		return err
	case errors.As(err, &status):
		return explainStatus(host, ref, status)
	case errors.As(err, &dns):
		return fmt.Errorf("%w: host %s is not found: check the image's name and this machine's DNS", ErrUnreachable, dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nothing listens at %s: is it up?", ErrUnreachable, host)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network):
		return fmt.Errorf("%w: %s: %s", ErrUnreachable, host, plain(err.Error()))
	}
	return errors.New(plain(err.Error()))
}

func explainStatus(host string, ref name.Reference, status *transport.Error) error {
	switch code := status.StatusCode; {
	case code == http.StatusNotFound:
		return fmt.Errorf("%w: %s has no %s: push it, or correct the name", ErrNotFound, host, ref.Identifier())
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return fmt.Errorf("%w: %s does not show it (%d): it does not exist, or give credentials for %s in the registry config file", ErrUnauthorized, host, code, host)
	case code == http.StatusTooManyRequests:
		return fmt.Errorf("%w: %s has had too many requests from here: it is asked again later; credentials raise the limit", ErrUnreachable, host)
	case code >= 500:
		return fmt.Errorf("%w: %s answers %d: it is asked again later", ErrUnreachable, host, code)
	default:
		return fmt.Errorf("%s answers %d: %s", host, code, plain(status.Error()))
	}
}

// missing reports an answer that no other way of asking would better.
func missing(err error) bool {
	var status *transport.Error
	if errors.As(err, &status) {
		return status.StatusCode == http.StatusNotFound || status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden
	}
	return errors.Is(err, errForeign) || errors.Is(err, syscall.ECONNREFUSED)
}

// plain makes text from outside short and fit for a terminal.
func plain(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "…"
	}
	return text
}
