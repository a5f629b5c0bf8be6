package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// asked is one operation on the register: the content that a stack has
// accepted. A write says what it wrote, a read what it saw.
type asked struct {
	write bool
	value string
}

// register is what a stack's accepted content must behave like.
func register() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return "v0" },
		Step: func(state, input, output any) (bool, any) {
			op := input.(asked)
			if op.write {
				return true, op.value
			}
			return output == state, state
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprint(input, output) },
	}
}

// history records what clients asked and were told.
type history struct {
	mu  sync.Mutex
	ops []porcupine.Operation
}

func (h *history) add(op porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
}

// TestWhatClientsSeeIsLinearizable: clients write and read through all three
// managers while leaders are cut off, killed and asked to hand over. A write
// that ends as uncertain may count from then on, at any time or never.
func TestWhatClientsSeeIsLinearizable(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			inCluster(t, 3, func(t *testing.T, m *managers) {
				m.propose(0, putSource("main"))
				m.propose(0, accept("shop", "v0"))
				h := &history{}
				ctx, cancel := context.WithCancel(t.Context())
				var clients sync.WaitGroup
				for id := range 6 {
					chance := rand.New(rand.NewPCG(seed, uint64(id)))
					clients.Go(func() {
						for n := 0; ctx.Err() == nil; n++ {
							h.ask(ctx, t, m, id, n, chance)
							time.Sleep(time.Duration(chance.IntN(200)) * time.Millisecond)
						}
					})
				}
				trouble(m, rand.New(rand.NewPCG(seed, 99)))
				cancel()
				clients.Wait()
				m.agree()
				if got := porcupine.CheckOperationsTimeout(register(), h.ops, 20*time.Second); got != porcupine.Ok {
					t.Errorf("%d operations: %v", len(h.ops), got)
				}
				if len(h.ops) < 100 {
					t.Errorf("only %d operations", len(h.ops))
				}
			})
		})
	}
}

// ask is one client's one operation, at a manager that runs.
func (h *history) ask(ctx context.Context, t *testing.T, m *managers, id, n int, chance *rand.Rand) {
	s := m.fabric.store(string(nodeName(chance.IntN(3))))
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	began := time.Now().UnixNano()
	op := asked{write: chance.IntN(2) == 0, value: "v" + strconv.Itoa(id) + "-" + strconv.Itoa(n)}
	if !op.write {
		if err := s.Confirm(ctx); err != nil {
			return // it saw nothing
		}
		shop, _ := s.View().Stack("shop")
		seen := strings.TrimPrefix(string(shop.Accepted.Content), "sha256:")
		h.add(porcupine.Operation{ClientId: id, Input: asked{}, Call: began, Output: seen, Return: time.Now().UnixNano()})
		return
	}
	_, err := s.Propose(ctx, accept("shop", op.value))
	ended := time.Now().UnixNano()
	switch {
	case errors.Is(err, ErrUncertain), errors.Is(err, ErrClosed), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		ended = 1 << 62 // whenever, if ever: nobody may read what came before it and must not have seen it
	case errors.Is(err, ErrNotLeader):
		return
	case err != nil:
		t.Error(err)
		return
	}
	h.add(porcupine.Operation{ClientId: id, Input: op, Call: began, Return: ended})
}

// trouble does for a minute what goes wrong.
func trouble(m *managers, chance *rand.Rand) {
	for range 12 {
		i := m.leader()
		if chance.IntN(3) == 0 {
			i = chance.IntN(len(m.stores))
		}
		switch chance.IntN(3) {
		case 0:
			m.sever(i, true)
			time.Sleep(time.Duration(1+chance.IntN(4)) * time.Second)
			m.sever(i, false)
		case 1:
			m.stop(i)
			time.Sleep(time.Duration(1+chance.IntN(4)) * time.Second)
			m.start(i)
		case 2:
			_ = m.stores[i].HandOver(m.t.Context(), "") // or not: others go on
		}
		time.Sleep(time.Duration(chance.IntN(2000)) * time.Millisecond)
	}
}
