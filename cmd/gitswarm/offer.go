package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gitswarm/gitswarm/swarm"
)

// Limits on what a daemon says of its machine: every manager keeps it.
const (
	maxOffers      = 64
	maxOfferLength = 256
	maxPieces      = 1 << 20
)

// offer is what a machine is and has besides what it can tell by itself.
type offer struct {
	labels  map[string]string       // engine.labels
	generic []swarm.GenericResource // by kind
}

// readOffer joins what flags and the configuration file say: a flag wins over
// the file's entry of the same name.
func readOffer(file fileConfig, labels, resources []string) (offer, error) {
	var o offer
	var err error
	if o.labels, err = pairs(file.Labels, labels); err != nil {
		return o, fmt.Errorf("read label: %w (give NAME=VALUE, as in disk=ssd)", err)
	}
	kinds, err := pairs(file.Resources, resources)
	if err != nil {
		return o, fmt.Errorf("read resource: %w (give KIND=COUNT or KIND=NAME,NAME, as in gpu=2 or gpu=GPU-1,GPU-2)", err)
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		generic, err := readGeneric(kind, kinds[kind])
		if err != nil {
			return o, fmt.Errorf("read resource %s: %w", kind, err)
		}
		o.generic = append(o.generic, generic)
	}
	return o, nil
}

// pairs reads NAME=VALUE over what a file gave.
func pairs(file map[string]string, given []string) (map[string]string, error) {
	all := maps.Clone(file)
	if all == nil {
		all = make(map[string]string)
	}
	for _, text := range given {
		name, value, found := strings.Cut(text, "=")
		if !found {
			return nil, fmt.Errorf("%q has no =", text)
		}
		all[name] = value
	}
	if len(all) > maxOffers {
		return nil, fmt.Errorf("%d are more than %d", len(all), maxOffers)
	}
	for name, value := range all {
		if name == "" || value == "" || strings.ContainsAny(name, " \t\n") || len(name)+len(value) > maxOfferLength {
			return nil, fmt.Errorf("%q=%q is empty, has a space in its name or more than %d bytes", name, value, maxOfferLength)
		}
	}
	return all, nil
}

// readGeneric reads "2", or the names of pieces: "GPU-1,GPU-2".
func readGeneric(kind, text string) (swarm.GenericResource, error) {
	if count, err := strconv.ParseInt(text, 10, 64); err == nil {
		if count < 1 || count > maxPieces {
			return swarm.GenericResource{}, fmt.Errorf("%d is not a number from 1 to %d", count, maxPieces)
		}
		return swarm.GenericResource{Kind: kind, Count: count}, nil
	}
	names := strings.Split(text, ",")
	slices.Sort(names)
	if slices.Contains(names, "") || len(slices.Compact(slices.Clone(names))) < len(names) {
		return swarm.GenericResource{}, errors.New("a name is empty or given twice")
	}
	return swarm.GenericResource{Kind: kind, Names: names}, nil
}
