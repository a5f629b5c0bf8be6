package main

import (
	"slices"

	"github.com/gitswarm/gitswarm/manager/api"
	"github.com/gitswarm/gitswarm/manager/store"
)

// managers is what the store knows of them, as the control API asks.
type managers struct{ *store.Store }

// Members returns the managers, by node.
func (m managers) Members() []api.Member {
	var members []api.Member
	for _, member := range m.Store.Members() {
		members = append(members, apiMember(member))
	}
	return members
}

// Leader returns who leads.
func (m managers) Leader() (api.Member, bool) {
	leader, known := m.Store.Leader()
	return apiMember(leader), known
}

func apiMember(m store.Member) api.Member {
	return api.Member{Node: m.Node, Address: m.Address, Voter: m.Voter}
}

// managers are the addresses that this machine may ask, its own first.
func (d *daemon) managers(now membership) []string {
	var addresses []string
	if m := d.manager(); m != nil {
		addresses = append(addresses, m.address)
		for _, member := range m.store.Members() {
			addresses = append(addresses, member.Address)
		}
	}
	if agent := d.currentAgent(); agent != nil {
		addresses = append(addresses, agent.Managers()...)
	}
	addresses = append(addresses, now.place.Managers...)
	var once []string
	for _, address := range addresses {
		if !slices.Contains(once, address) {
			once = append(once, address)
		}
	}
	return once
}
