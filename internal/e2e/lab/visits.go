package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// visitEvery and visitPatience are those of a visitor: how long between two
// requests, and for one answer.
const (
	visitEvery    = 10 * time.Millisecond
	visitPatience = 3 * time.Second
)

// Visits count what a visitor sees who knows the addresses of all hosts, begins
// with another one each time, and tries the next when one refuses to connect.
type Visits struct {
	client *http.Client
	urls   []string
	cancel context.CancelFunc
	gone   sync.WaitGroup

	mu               sync.Mutex
	answered, failed int
	first            error
}

// Visit begins to ask a published port of the hosts, until Leave or until ctx
// ends.
func (c *Cluster) Visit(ctx context.Context, port int) *Visits {
	v := &Visits{client: &http.Client{Timeout: visitPatience, Transport: &http.Transport{DialContext: c.wires.dial, DisableKeepAlives: true}}}
	for _, h := range c.Hosts {
		v.urls = append(v.urls, "http://"+net.JoinHostPort(h.Address, strconv.Itoa(port))+"/")
	}
	ctx, v.cancel = context.WithCancel(ctx)
	v.gone.Go(func() {
		tick := time.NewTicker(visitEvery)
		defer tick.Stop()
		for turn := 0; ; turn++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				v.count(v.ask(turn))
			}
		}
	})
	return v
}

// ask is one request; no context ends it halfway.
func (v *Visits) ask(turn int) (err error) {
	for i := range v.urls {
		if err = v.get(v.urls[(turn+i)%len(v.urls)]); !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
	}
	return err
}

func (v *Visits) get(url string) error {
	answer, err := v.client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<16)); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, answer.Status)
	}
	return nil
}

func (v *Visits) count(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err == nil {
		v.answered++
		return
	}
	if v.failed++; v.first == nil {
		v.first = fmt.Errorf("at %s: %w", time.Now().UTC().Format(time.StampMilli), err)
	}
}

// Tally returns the counts since it was last asked, and the first failure of
// those.
func (v *Visits) Tally() (answered, failed int, first error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	answered, failed, first = v.answered, v.failed, v.first
	v.answered, v.failed, v.first = 0, 0, nil
	return answered, failed, first
}

// Leave ends the visits and returns the last tally.
func (v *Visits) Leave() (answered, failed int, first error) {
	v.cancel()
	v.gone.Wait()
	return v.Tally()
}
