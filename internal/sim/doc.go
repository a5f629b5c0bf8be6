// Package sim plays whole clusters in virtual time: the real managers with
// their logs, the real agents with a fake runtime, joined by connections in
// memory, while disks, links, machines and people do what they do at bad
// moments. It holds tests alone. It judges what must hold whatever happens; it
// measures nothing, and does not play the kernel, containers or git.
package sim
