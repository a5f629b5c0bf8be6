package figures

import (
	"testing"
	"time"
)

func TestWhatSlowsARoundSlowsBothSidesAndIsNoRatio(t *testing.T) {
	var ours, theirs Samples
	for _, slow := range []time.Duration{1, 7, 3, 2} {
		ours.Add(slow * 20 * time.Millisecond)
		theirs.Add(slow * 40 * time.Millisecond)
	}
	if got, want := Ratio(ours, theirs), "0.50× (0.50–0.50)"; got != want {
		t.Errorf("the ratio is %s, want %s", got, want)
	}
	if got, want := ours.Text("ms"), "50.0 ms (20.0–140)"; got != want {
		t.Errorf("the text is %s, want %s", got, want)
	}
	if got := Ratio(ours, nil); got != "" {
		t.Errorf("the ratio to nothing is %q, want none", got)
	}
}
