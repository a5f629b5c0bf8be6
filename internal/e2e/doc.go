// Package e2e judges gitswarm from outside: real containers, a real registry,
// a real git repository and the built binary. It holds tests alone; the lab
// that they run in is a package of its own.
package e2e
