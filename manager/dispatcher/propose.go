package dispatcher

import (
	"context"
	"time"

	"github.com/gitswarm/gitswarm/manager/store"
	"github.com/gitswarm/gitswarm/swarm"
)

// proposeAgain is the pause after the log did not take something.
const proposeAgain = 100 * time.Millisecond

// proposeReports writes what agents said into the log: the first word at once,
// and what comes while that is written together after it.
func (d *Dispatcher) proposeReports(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.reports.news:
		}

		view := d.config.Store.View()
		d.mu.Lock()
		batch, dropped := d.reports.take(view)
		d.mu.Unlock()
		err := d.propose(ctx, batch, dropped)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}

		d.log.Error("statuses were not written; they are tried again", "tasks", len(batch.Tasks), "error", err)
		d.mu.Lock()
		d.reports.restore(batch, dropped)
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(proposeAgain):
		}
	}
}

func (d *Dispatcher) propose(ctx context.Context, batch store.ReportStatus, dropped []swarm.KeptVolume) error {
	if len(batch.Tasks) > 0 {
		if _, err := d.config.Store.Propose(ctx, store.Command{At: time.Now(), ReportStatus: &batch}); err != nil {
			return err
		}
	}
	if len(dropped) > 0 {
		if _, err := d.config.Store.Propose(ctx, store.Command{At: time.Now(), DropVolumes: dropped}); err != nil {
			return err
		}
	}
	return nil
}
