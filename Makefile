# make demo    the main job: build, start a cluster, show it working, take it down
# make test    everything that can be tested on this machine
# make simulate SEEDS=100..200   the cluster played through by the dice, seed by seed
# make verify  the gate: changes nothing
.PHONY: help setup build demo test simulate verify fix bench
.DEFAULT_GOAL := help

CARGO ?= cargo

help:
	@sed -n 's/^# \(make\)/\1/p' Makefile

setup:
	@scripts/setup.sh

build: setup
	$(CARGO) build --workspace --bins

demo: build
	@examples/demo/run.sh

# One cargo call, one profile, one set of features: nothing is compiled twice.
test: setup
	@scripts/check-cuda.sh --install || true # its test says what is missing
	$(CARGO) test --workspace --all-targets
	$(CARGO) test --workspace --doc

SEEDS ?= 1..1000
simulate:
	MINIK8S_SEEDS=$(SEEDS) $(CARGO) test --workspace --test it -- --exact simulation::the_cluster_survives_every_seed --nocapture

verify:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet
	scripts/guards.sh

fix:
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged

bench: setup
	benches/run.sh
