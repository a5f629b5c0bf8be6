# make alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
export CGO_ENABLED ?= 0

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
GOLANGCI := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME ?= 10m
SOAK ?= 200
SOAK_CYCLES ?= 1000
SOAK_CALM ?= 10m
ROUNDS ?= 5
PEER_ROUNDS ?= 3
SEEDS ?= 10000

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what demo and test need from Debian's packages (asks for nothing that is there)
	@scripts/setup

.PHONY: build
build: ## build bin/gitswarm and bin/gitswarm-shim
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/gitswarm ./cmd/gitswarm-shim

.PHONY: demo
demo: setup ## push four versions of a web service and watch them roll, fail, roll back (needs root; under 3 minutes)
	@go run ./internal/e2e/demo

.PHONY: demo-cluster
demo-cluster: setup ## form a cluster of five, kill its leader during a rollout and a worker (needs root; under 3 minutes)
	@go run ./internal/e2e/democluster

.PHONY: test
test: setup ## all tests, end to end included (under 15 minutes on 2 cores; what needs root is skipped without it)
	go vet ./...
	go test -timeout 20m ./...

.PHONY: race
race: setup ## the tests of everything but end to end under the race detector (needs gcc)
	CGO_ENABLED=1 go test -race -timeout 30m $$(go list ./... | grep -v internal/e2e)

.PHONY: soak
soak: setup ## long loops: the daemon killed at SOAK random moments, managers SOAK_CYCLES times, all cores busy for SOAK_CALM, then each fuzz target for FUZZTIME
	GITSWARM_SOAK=$(SOAK) GITSWARM_SOAK_CYCLES=$(SOAK_CYCLES) GITSWARM_SOAK_CALM=$(SOAK_CALM) go test -timeout 12h -run 'Soak|Killed' -v ./internal/e2e
	$(MAKE) simulate
	$(MAKE) fuzz

.PHONY: simulate
simulate: ## SEEDS clusters in virtual time, each with faults of its own (10000)
	go test -timeout 3h -run TestSeeds ./internal/sim -seeds $(SEEDS)

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (10m)
	@scripts/fuzz $(FUZZTIME)

.PHONY: bench
bench: setup ## benchmarks, paired and interleaved with containerd driven directly (needs root; ROUNDS=5)
	go run ./internal/e2e/bench -rounds $(ROUNDS)
	go test -run '^$$' -bench . -benchmem ./manager/... ./reconciler ./internal/wire ./gitsync/...

.PHONY: bench-peers
bench-peers: setup ## a cluster of five beside Docker Swarm on the same hosts, taking turns (needs root; installs docker.io; ENGINE=DIR for another engine)
	@scripts/setup --peers
	go run ./internal/e2e/benchpeers -rounds $(PEER_ROUNDS) -engine '$(ENGINE)'

.PHONY: lint
lint: ## golangci-lint with .golangci.yml
	$(GOLANGCI) run ./...

.PHONY: verify
verify: ## format, tidy, generate; fails if that changes anything
	gofmt -l -w .
	go mod tidy
	go test ./gitsync/compose -run TestTheManualIsTheTable -update
	git diff --exit-code
