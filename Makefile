# `make run` and `make test` are all that a fresh machine needs; the other targets are for daily work.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
# Said twice so that a failure of .ci/deps ends the recipe.
DEPS = deps="$$(.ci/deps)"; eval "$$deps"
DATA ?= default.etcd
SEEDS ?= 0..
# Built apart: with madsim nearly every crate is another.
SIM = CARGO_TARGET_DIR="$$CARGO_TARGET_DIR-sim" RUSTFLAGS="--cfg madsim"

.PHONY: help run build test check fmt sim sim-build storm zoo demo bench fuzz mutants chaos
help: ## What there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

run: ## Build and serve on 127.0.0.1:2379 (data in ./default.etcd)
	$(DEPS); cargo build --locked --release --bin kontiki; exec "$$CARGO_TARGET_DIR/release/kontiki" --data-dir $(DATA)

build: ## Build the release binary and say where it is
	$(DEPS); cargo build --locked --release --bin kontiki; echo "$$CARGO_TARGET_DIR/release/kontiki"

test: ## The whole suite
	$(DEPS); cargo test --locked --workspace; $(MAKE) --no-print-directory sim; \
	.ci/agree "$$CARGO_TARGET_DIR/debug/sim" "$$CARGO_TARGET_DIR-sim/sim/sim"

sim: ## The simulator's slice: seeds on both drivers, each oracle against wrong histories
	$(DEPS); $(SIM) cargo test --locked --profile sim -p sim

sim-build: ## Build the simulator and say where it is
	$(DEPS); $(SIM) cargo build --locked --profile sim -p sim; echo "$$CARGO_TARGET_DIR-sim/sim/sim"

storm: ## Seeds until Ctrl-C, or through SEEDS=A..B; [JOBS=1]
	$(DEPS); $(SIM) cargo build --locked --profile sim -p sim; \
	exec "$$CARGO_TARGET_DIR-sim/sim/sim" run --seeds "$(SEEDS)" --jobs "$(or $(JOBS),1)" --keep-going --coverage

zoo: ## Historic bugs, planted one by one: how many does the simulator catch
	$(DEPS); export CARGO_TARGET_DIR="$$CARGO_TARGET_DIR-sim" RUSTFLAGS="--cfg madsim"; cargo build --locked --profile sim -p sim; \
	exec "$$CARGO_TARGET_DIR/sim/sim" zoo $(ZOO)

check: ## Formatting and lints
	$(DEPS); cargo fmt --all --check; cargo clippy --locked --workspace --all-targets -- -D warnings

fuzz: ## Every fuzz target for a while: make fuzz SECONDS=600
	fuzz/run --seconds $(or $(SECONDS),60)

mutants: ## Which changes of the pure modules no test sees: make mutants [MUTANTS="raft lease/book"]
	fuzz/mutants $(MUTANTS)

chaos: ## Real members in namespaces under every fault: make chaos MINUTES=5 [MEMBERS=5] [SEED=7] [ETCD=/path/to/etcd]
	$(DEPS); $(if $(ETCD),,cargo build --locked --release --bin kontiki;) \
	KONTIKI_BIN="$(or $(ETCD),$$CARGO_TARGET_DIR/release/kontiki)" KONTIKI_CHAOS_SEED="$(or $(SEED),$$(date +%s))" \
	KONTIKI_CHAOS_SECONDS=$$((60 * $(or $(MINUTES),3))) KONTIKI_CHAOS_CALM=40 KONTIKI_CHAOS_MEMBERS=$(or $(MEMBERS),3) \
	KONTIKI_CHAOS_HISTORY="$$CARGO_TARGET_DIR/chaos" cargo test --locked --test kill9 -- --exact chaos::chaos --nocapture

fmt: ## Format
	cargo fmt --all

demo: ## Three members on loopback, until Ctrl-C
	$(DEPS); cargo build --locked --release --bin kontiki; exec .ci/demo "$$CARGO_TARGET_DIR/release/kontiki"

bench: ## Against real etcd: make bench ETCD=/path/to/etcd
	$(DEPS); cargo build --locked --release --bin kontiki; exec python3 tests/bench_compare.py --etcd "$(ETCD)" --kontiki "$$CARGO_TARGET_DIR/release/kontiki"
