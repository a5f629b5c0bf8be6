package wire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitswarm/gitswarm/swarm"
)

func linesAt(task swarm.TaskID, seconds ...int) Lines {
	return func(_ context.Context, emit func(swarm.LogLine) error) error {
		for _, s := range seconds {
			if err := emit(swarm.LogLine{Task: task, At: time.Unix(int64(s), 0)}); err != nil {
				return err
			}
		}
		return nil
	}
}

func collect(got *[]string) func(swarm.LogLine, error) error {
	return func(line swarm.LogLine, err error) error {
		if err != nil {
			*got = append(*got, err.Error())
		} else {
			*got = append(*got, fmt.Sprint(line.Task, line.At.Unix()))
		}
		return nil
	}
}

func TestMergesLinesByTime(t *testing.T) {
	var got []string
	broken := func(context.Context, func(swarm.LogLine) error) error { return errors.New("w2 is down") }
	err := MergeLines(t.Context(), []Lines{linesAt("a", 1, 4, 9), linesAt("b", 2, 3, 10), linesAt("c"), broken}, false, collect(&got))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"w2 is down", "a1", "b2", "b3", "a4", "a9", "b10"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAFollowedLineDoesNotWaitForAQuietSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		quiet := func(ctx context.Context, _ func(swarm.LogLine) error) error {
			<-ctx.Done()
			return ctx.Err()
		}
		began := time.Now()
		var got []string
		err := MergeLines(ctx, []Lines{linesAt("a", 1, 2), quiet, linesAt("b", 1)}, true, func(line swarm.LogLine, err error) error {
			_ = collect(&got)(line, err)
			if len(got) == 3 {
				cancel()
			}
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
		if want := []string{"a1", "b1", "a2"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if waited := time.Since(began); waited > lineWindow {
			t.Errorf("the lines waited %v", waited)
		}
	})
}

func TestMergeStopsItsReadersWhenNobodyListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		enough := errors.New("enough")
		endless := func(_ context.Context, emit func(swarm.LogLine) error) error {
			for i := 0; ; i++ {
				if err := emit(swarm.LogLine{At: time.Unix(int64(i), 0)}); err != nil {
					return err
				}
			}
		}
		err := MergeLines(t.Context(), []Lines{endless, endless}, true, func(swarm.LogLine, error) error { return enough })
		if !errors.Is(err, enough) {
			t.Errorf("error is %v", err)
		}
	})
}
