# One line a target; `make help` prints them. The work is in scripts/.
.PHONY: help test demo build binaries image image-test bench-cluster fuzz deny mutants clean

IMAGE ?= sealgate:latest
ENGINE ?= $(shell command -v podman || command -v docker || echo buildah)

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

test: ## everything that is checked before a change is taken: formatting, lints, tests, real clusters, rules, manifests
	@scripts/test

demo: ## the gate at work, in a minute: a signed and an unsigned image, and what it says to both
	@scripts/packages
	cargo build --locked
	@scripts/demo

build: ## the program, for use: target/release/sealgate
	cargo build --release --locked

binaries: ## etcd, kube-apiserver, kube-controller-manager and kubectl for the cluster tests
	@scripts/cluster-binaries

image: ## the container image (IMAGE=name, ENGINE=podman, docker or buildah)
	$(ENGINE) build -t $(IMAGE) .

image-test: ## the container image on bases made of Debian packages, built and run without an image registry
	@scripts/image-test

bench-cluster: ## what the gate costs a real API server, against a webhook that only pins; writes docs/performance.md
	@scripts/packages
	cargo build --release --locked
	@scripts/bench-cluster

fuzz: ## every fuzz target for a minute (SECONDS_EACH=60)
	@scripts/fuzz

deny: ## what dependencies may be (deny.toml), with cargo-deny; `make test` holds most of it without
	@scripts/deny

mutants: ## mutation tests of the code that decides: what a change touches (BASE=main~5), or a part of all (SHARD=3/40)
	@scripts/mutants

clean: ## removes what was built
	cargo clean
	rm -rf tests/cluster/.cache fuzz/target
