package main

import (
	"context"
	"fmt"
	"time"
)

// commit commits a stack without pushing it.
func (g *side) commit(name, compose string) (commit string, err error) {
	if err := g.repo.Write(map[string]string{name + "/compose.yaml": compose}); err != nil {
		return "", err
	}
	return g.repo.Commit("change " + name)
}

// pushing commits a stack and begins to push it. How long the push took goes
// to took, which may be nil; how it ended, to pushed.
func (g *side) pushing(name, compose string, took *samples, pushed chan<- error) (began time.Time, err error) {
	if _, err := g.commit(name, compose); err != nil {
		return began, err
	}
	began = time.Now()
	g.pushed = began
	go func() {
		err := g.repo.Send()
		if took != nil {
			took.Add(time.Since(began))
		}
		pushed <- err
	}()
	return began, nil
}

// push commits a stack and pushes it.
func (g *side) push(name, compose string) (commit string, err error) {
	if commit, err = g.commit(name, compose); err != nil {
		return "", err
	}
	g.pushed = time.Now()
	return commit, g.repo.Send()
}

// loaderReady is how long after a commit the daemon has the loader of the next
// one ready.
const loaderReady = 4 * time.Second

// rested waits until the daemon has: people push less often than benchmarks.
func (g *side) rested(ctx context.Context) error {
	return pause(ctx, time.Until(g.pushed.Add(loaderReady)))
}

// settled pushes a stack and waits until it is healthy.
func (g *side) settled(ctx context.Context, name, compose string) (commit string, err error) {
	if commit, err = g.push(name, compose); err != nil {
		return "", err
	}
	text, exit := g.Run(ctx, "status", "--wait", "--revision", commit, "--timeout", "90s")
	if exit != 0 {
		return commit, fmt.Errorf("gitswarm status --wait exited %d: %s", exit, text)
	}
	return commit, nil
}
