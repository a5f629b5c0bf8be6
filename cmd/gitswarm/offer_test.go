package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestAMachineOffersWhatFlagsAndFileSay(t *testing.T) {
	file := fileConfig{
		Labels:    map[string]string{"disk": "hdd", "rack": "7"},
		Resources: map[string]string{"gpu": "1", "fpga": "b,a"},
	}
	o, err := readOffer(file, []string{"disk=ssd"}, []string{"gpu=2", "key=K=1,K=2"})
	if err != nil {
		t.Fatal(err)
	}
	want := "map[disk:ssd rack:7] [{fpga 0 [a b]} {gpu 2 []} {key 0 [K=1 K=2]}]"
	if got := fmt.Sprint(o.labels, " ", o.generic); strings.Join(strings.Fields(got), " ") != want {
		t.Errorf("offers %s, want %s", got, want)
	}
}

func TestAnOfferThatMeansNothingIsRefused(t *testing.T) {
	for _, test := range []struct{ labels, resources []string }{
		{labels: []string{"disk"}}, {labels: []string{"=ssd"}}, {labels: []string{"disk="}}, {labels: []string{"my disk=ssd"}},
		{labels: []string{"disk=" + strings.Repeat("x", 300)}},
		{resources: []string{"gpu=0"}}, {resources: []string{"gpu=-1"}}, {resources: []string{"gpu=A,,B"}}, {resources: []string{"gpu=A,A"}},
		{resources: []string{"gpu"}}, {resources: []string{"gpu=9999999999"}},
	} {
		if o, err := readOffer(fileConfig{}, test.labels, test.resources); err == nil {
			t.Errorf("labels %q and resources %q were read as %+v", test.labels, test.resources, o)
		}
	}
}
