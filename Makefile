# `make demo` and `make test` set up a fresh Debian 12 with Rust by themselves; see CONTRIBUTING.md for what each step does.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export CARGO_TERM_COLOR ?= auto
export CARGO_INCREMENTAL ?= 1
NEXTEST_VERSION := 0.9.148
VENV := $(CURDIR)/.venv
export PATH := $(VENV)/bin:$(PATH)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
ARGS ?=

.PHONY: help
help: ## Lists the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1\t/' | expand -t 20

.PHONY: tools
tools: $(VENV)/.stamp ## Installs what builds and tests need (Debian packages, PyPI)

$(VENV)/.stamp: tools/requirements.txt tools/debian.txt tools/install
	@tools/install $(VENV)
	@touch $@

.PHONY: helm
helm: tools ## The real Helm, which tests of the chart run
	@tools/helm $(VENV)

.PHONY: compiler
compiler:
	@command -v cc >/dev/null || tools/install-packages build-essential

.PHONY: demo
demo: compiler ## A mesh of 3 clusters and 200 services on this machine, with load, failures and a verdict (ARGS='--for 60s -o json')
	@tools/say "building leno (quick profile)"
	@cargo build --quiet --profile quick -p leno
	@$(TARGET_DIR)/quick/leno demo $(ARGS)

.PHONY: check
check: tools ## The quick form: format, lints, layers, licences
	@tools/say "format"
	@cargo fmt --all --check
	@tools/say "clippy"
	@cargo clippy --quiet --workspace --all-targets -- -D warnings
	@tools/say "layers"
	@cargo run --quiet -p xtask -- check-layers
	@tools/say "dependencies"
	@cargo deny --log-level error check bans licenses sources

.PHONY: test
test: tools helm check ## Everything that CI checks
	@tools/say "building the binaries that end-to-end tests run"
	@cargo build --quiet --profile quick -p leno -p leno-proxy-bin -p leno-control-bin
	@tools/say "tests"
	@LENO_BIN_DIR=$(TARGET_DIR)/quick cargo nextest run --workspace --no-fail-fast
	@tools/say "documentation tests"
	@cargo test --quiet --workspace --doc
	@tools/say "support table"
	@cargo run --quiet -p xtask -- support --check

.PHONY: e2e
e2e: tools ## Leno on real Kubernetes clusters of this machine; needs root and Go (ARGS=short for the quick form, or words of checks' names)
	@tools/say "building what the images hold"
	@cargo build --quiet --profile quick -p leno -p leno-proxy-bin -p leno-control-bin -p leno-cni-bin -p leno-cni-agent -p leno-standin -p leno-e2e
	@tools/say "clusters and checks"
	@e2e/run $(TARGET_DIR)/quick $(TARGET_DIR)/e2e $(ARGS)

.PHONY: e2e-short
e2e-short: tools ## The short form of e2e; where containers cannot run, one line says why
	@why=$$(e2e/run why-not); \
	if [ -n "$$why" ]; then echo "skipped: e2e: containers cannot run here: $$why"; else $(MAKE) --no-print-directory e2e ARGS=short; fi

.PHONY: conformance
conformance: tools ## The Gateway API's conformance suite on a cluster of this machine; needs root and Go (ARGS=gateway, mesh or tls for one part)
	@tools/say "building what the images hold"
	@cargo build --quiet --profile quick -p leno -p leno-proxy-bin -p leno-control-bin -p leno-cni-bin -p leno-cni-agent
	@tools/say "the cluster and the suite"
	@e2e/conformance/run $(TARGET_DIR)/quick $(TARGET_DIR)/conformance $(ARGS)

.PHONY: clean
clean: ## Removes what was built
	@cargo clean
	@rm -rf $(VENV)
