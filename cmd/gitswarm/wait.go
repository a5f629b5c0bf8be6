package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/swarm"
)

// reconnectEvery is how often a command tries a daemon that went away.
const reconnectEvery = time.Second

// await waits for a goal, printing what goes on, and ends with the exit code
// of the outcome. It lives through a restart of the daemon.
func (a *app) await(ctx context.Context, goal api.Goal, timeout time.Duration) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(timeout)
	progress := progress{app: a, shown: map[string]bool{}}
	for heard := false; ; heard = true {
		outcome, err := a.awaitOnce(ctx, client, goal, time.Until(deadline), &progress)
		lost := errors.Is(err, errStreamEnded) || errors.Is(err, errUnreachable) || leaderless(err)
		switch {
		case err == nil:
			if err := a.writeOutcome(a.stdout, outcome); err != nil {
				return err
			}
			if outcome.Code != api.CodeHealthy {
				return &exitError{code: outcome.Code}
			}
			return nil
		case !lost || !heard && errors.Is(err, errUnreachable):
			return err
		case time.Now().After(deadline):
			return &exitError{code: api.CodeTimeout, err: fmt.Errorf("wait: timed out: %w", err)}
		}
		progress.line("the daemon went away, asking again")
		if err := sleep(ctx, reconnectEvery); err != nil {
			return err
		}
	}
}

func (a *app) awaitOnce(ctx context.Context, c *client, goal api.Goal, left time.Duration, progress *progress) (api.Outcome, error) {
	query := url.Values{"seconds": {strconv.Itoa(max(int(left.Seconds()+0.5), 1))}}
	if goal.Stack != "" {
		query.Set("stack", string(goal.Stack))
	}
	if goal.Revision != "" {
		query.Set("revision", goal.Revision)
	}
	if goal.Accepted {
		query.Set("accepted", "true")
	}
	if goal.After > 0 {
		query.Set("after", strconv.FormatUint(goal.After, 10))
	}

	var outcome *api.Outcome
	err := c.stream(ctx, "/v1/wait", query, func(data []byte) error {
		var line api.WaitLine
		if err := json.Unmarshal(data, &line); err != nil {
			return fmt.Errorf("read progress: %w", err)
		}
		for _, text := range line.Pending {
			progress.line(text)
		}
		outcome = line.Outcome
		return nil
	})
	if outcome != nil {
		return *outcome, nil
	}
	if err == nil {
		err = errStreamEnded
	}
	return api.Outcome{}, err
}

// leaderless reports whether a daemon answered that no manager leads.
func leaderless(err error) bool {
	var failed *api.Failure
	return errors.As(err, &failed) && (failed.Code == api.CodeNoLeader || failed.Code == api.CodeNoQuorum)
}

// progress prints each line once, where it disturbs no script.
type progress struct {
	app   *app
	shown map[string]bool
}

func (p *progress) line(text string) {
	if text == "" || p.shown[text] {
		return
	}
	p.shown[text] = true
	fmt.Fprintf(p.app.stderr, "%s %s\n", p.app.paint.faint(time.Now().Format(time.TimeOnly)), text)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// act asks for something to be done to a stack, says what was done, and waits
// for the rollout that follows if asked to.
func (a *app) act(ctx context.Context, stack, verb string, in any, wait waitFlags) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	goal := api.Goal{Stack: swarm.StackName(stack), Accepted: verb != "retry" && verb != "resume"}
	if wait.wait {
		var before api.Stack
		if err := client.get(ctx, "/v1/stacks/"+url.PathEscape(stack), nil, &before); err != nil {
			return err
		}
		if before.Rollout != nil {
			goal.After = before.Rollout.ID
		}
	}

	var done api.Done
	if err := client.post(ctx, "/v1/stacks/"+url.PathEscape(stack)+"/"+verb, in, &done); err != nil {
		return err
	}
	if err := a.show(done, func(bool) { fmt.Fprintln(a.stdout, done.Text) }); err != nil || !wait.wait {
		return err
	}
	return a.await(ctx, goal, wait.timeout)
}
