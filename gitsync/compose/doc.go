// Package compose turns a checked-out tree into a swarm.Stack: it loads a
// Compose project, sorts every key into honoured, warned and refused, and
// renders what is left with all defaults filled in.
//
// A repository is input from outside, so the work happens in a child process
// that has an empty environment, no root file system but an empty folder, and
// limits on time and memory. The child holds no path of the machine: it asks
// its parent for files of the tree, by name, and gets bounded bytes.
//
// The package reads nothing but the tree that it is given. It resolves no
// image, opens no connection, judges no policy and stores nothing; it never
// drops a key in silence.
package compose
