package gitsync

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// explain adds to an error of the network what a person can do about it.
func explain(err error) error {
	var (
		dns       *net.DNSError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer in %s: %w", syncTimeout, err)
	case errors.As(err, &dns):
		return fmt.Errorf("host %s is not found: check the URL and this machine's DNS: %w", dns.Name, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens there: is the server up? %w", err)
	case errors.As(err, &authority):
		return fmt.Errorf("the server's certificate is not trusted: add its authority to this machine's: %w", err)
	case errors.As(err, &hostname):
		return fmt.Errorf("the server's certificate is for another name: %w", err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("this machine's disk is full: make room: %w", err)
	}
	return err
}

// loopback reports whether a host is this machine, which nobody listens in on.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
