# Two commands matter to a newcomer: `make demo` and `make test`. Each installs what it needs (Debian packages
# when root, saying which), is idempotent, and prints the time of every stage.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help demo test test-all fuzz fuzz-engine lint deps deps-demo deps-test deps-peers deps-guest deps-guest-stock deps-lint deps-buf deps-engine deps-xdp engine xdp venv proto deb docs lock clean

CACHE ?= $(HOME)/.cache/ipsecgw
export IPSECGW_CACHE := $(CACHE)
# Tests start processes by the hundred, and to compile the code takes each twice as long as to load it compiled.
unexport PYTHONDONTWRITEBYTECODE
BUF_VERSION := 1.75.0
BUF := $(CACHE)/buf-$(BUF_VERSION)/node_modules/.bin/buf
FUZZ_SECONDS ?= 60
FUZZ_TOTAL ?=
FUZZ_TARGETS ?=
STAGE := .ci/stage
BIN := .venv/bin
# Two at a time; what makes namespaces shares a core with one other at the most, because it measures loss.
FAST_TESTS := tests/unit tests/exchanges tests/fuzz tests/api tests/repo tests/engine
ROOT_TESTS := tests/interop tests/netns tests/packages tests/guest tests/conformance tests/ebpf tests/espd tests/espd_io
# A file is one worker's. They are dealt out in the order above, the long ones first, not those of most tests first.
BY_FILE := -n 2 --dist loadfile --no-loadscope-reorder
C_SOURCES = $(wildcard ebpf/*.c ebpf/include/*.h hw/engine/*/*.c hw/engine/*/*.h hw/espd/*/*.c hw/espd/*/*.h hw/bench/*.c hw/bench/*.h)
SKIPS := .pytest_cache/ipsecgw-skips
TIMES := .pytest_cache/ipsecgw-times

help:
	@echo 'make demo      two gateways in network namespaces, one tunnel, real traffic (root)'
	@echo 'make test      what every change must pass: unit, exchange, API, namespace, interop and guest tests (root)'
	@echo 'make test-all  the same with the slow ones'
	@echo 'make fuzz      every fuzz target for FUZZ_SECONDS (60), or those of FUZZ_TARGETS, guided by coverage; with'
	@echo '               FUZZ_TOTAL=3600 again and again, until each has had that much CPU time over all runs'
	@echo 'make lint      ruff, mypy --strict, import floors, generated code, clang-format, buf'
	@echo 'make engine    the native ESP engine (C), in $(CACHE)/engine'
	@echo 'make xdp       the XDP programs (C for the kernel), in ebpf/build'
	@echo 'make proto     regenerate the gRPC code from proto/'
	@echo 'make deb       a Debian package of the whole, in dist/'
	@echo 'make docs      the documentation as a site, in dist/docs'
	@echo 'make lock      renew requirements.lock from pyproject.toml'

# The native engine needs a C compiler and OpenSSL's headers: without them the demo runs all the same, and says so.
demo: deps-demo venv
	@mkdir -p $(CACHE)
	@$(MAKE) --no-print-directory -C hw/espd BUILD=$(CACHE)/engine >$(CACHE)/demo-engine.log 2>&1 || \
	  echo 'the native engine is not built, see $(CACHE)/demo-engine.log: the demo takes what else there is'
	@$(STAGE) 'demo' $(BIN)/ipsecgw demo $(DEMO_ARGS)

# One stage after another, each with the whole machine, and all of them even if one fails. $(1): which tests.
define run_tests
	@rm -f $(SKIPS) $(TIMES)
	@failed=0; \
	$(STAGE) 'tests without root' $(BIN)/pytest -q -n 2 -m 'not guest$(1)' $(FAST_TESTS) || failed=1; \
	.ci/twice 'tests in the guest' $(BIN)/pytest -q -m 'guest$(1)' $(ROOT_TESTS) || failed=1; \
	.ci/twice 'tests in namespaces' $(BIN)/pytest -q $(BY_FILE) -m 'not guest$(1)' $(ROOT_TESTS) || failed=1; \
	$(BIN)/python tests/repo/time_table.py $(TIMES); \
	$(BIN)/python tests/repo/skip_table.py $(SKIPS) tests/expected-skips.txt || failed=1; \
	exit $$failed
endef

test: deps-peers deps-guest engine xdp venv $(BUF)
	$(call run_tests, and not slow)

test-all: deps-peers deps-guest deps-guest-stock engine xdp venv $(BUF)
	$(call run_tests)

fuzz: venv fuzz-engine
	@$(BIN)/python -m tests.fuzz.run --seconds $(FUZZ_SECONDS) --corpus $(CACHE)/fuzz \
	  $(if $(FUZZ_TOTAL),--total $(FUZZ_TOTAL)) $(FUZZ_TARGETS)

# In C, by libFuzzer; like the others it keeps its corpus.
fuzz-engine: deps-engine
	@mkdir -p $(CACHE)/fuzz/engine-open
	@$(MAKE) --no-print-directory -C hw/engine BUILD=$(CACHE)/engine/fuzz $(CACHE)/engine/fuzz/fuzz_open
	@$(STAGE) 'fuzz engine-open' $(CACHE)/engine/fuzz/fuzz_open -max_total_time=$(FUZZ_SECONDS) -max_len=2048 -verbosity=0 \
	  -artifact_prefix=$(CACHE)/fuzz/engine-open-crash- $(CACHE)/fuzz/engine-open
	@mkdir -p $(CACHE)/fuzz/espd-control
	@$(MAKE) --no-print-directory -C hw/espd BUILD=$(CACHE)/engine/fuzz $(CACHE)/engine/fuzz/fuzz_control
	@$(STAGE) 'fuzz espd-control' $(CACHE)/engine/fuzz/fuzz_control -max_total_time=$(FUZZ_SECONDS) -max_len=6000 \
	  -verbosity=0 -artifact_prefix=$(CACHE)/fuzz/espd-control-crash- $(CACHE)/fuzz/espd-control
	@mkdir -p $(CACHE)/fuzz/espd-succession
	@$(MAKE) --no-print-directory -C hw/espd BUILD=$(CACHE)/engine/fuzz $(CACHE)/engine/fuzz/fuzz_succession
	@$(STAGE) 'fuzz espd-succession' $(CACHE)/engine/fuzz/fuzz_succession -max_total_time=$(FUZZ_SECONDS) -max_len=32000 \
	  -verbosity=0 -artifact_prefix=$(CACHE)/fuzz/espd-succession-crash- $(CACHE)/fuzz/espd-succession

lint: deps-lint venv $(BUF)
	@$(STAGE) 'ruff check' $(BIN)/ruff check .
	@$(STAGE) 'ruff format' $(BIN)/ruff format --check .
	@$(STAGE) 'mypy --strict' $(BIN)/mypy
	@$(STAGE) 'import floors' $(BIN)/lint-imports --no-cache
	@$(STAGE) 'generated code is fresh' proto/generate.sh --check
	@$(STAGE) 'clang-format' clang-format --dry-run -Werror $(C_SOURCES)
	@$(STAGE) 'buf lint' $(BUF) lint proto

proto: venv
	@proto/generate.sh

deps: deps-demo deps-peers deps-guest deps-engine deps-xdp deps-buf deps-lint

deps-demo deps-test deps-xdp deps-buf deps-lint: deps-%:
	@$(STAGE) 'Debian packages ($*)' .ci/install-packages .ci/packages-$*
	@if [ -e .ci/packages-$*-$$(dpkg --print-architecture) ]; then .ci/install-packages .ci/packages-$*-$$(dpkg --print-architecture); fi

# IKE daemons that are not installed but unpacked: see the script.
deps-peers: deps-test
	@$(STAGE) 'peers of the interop tests' .ci/fetch-peers .ci/packages-peers $(CACHE)/peers

# The kernel that the tests marked `guest` run in: six minutes once, nothing afterwards.
deps-guest:
	@$(STAGE) 'Debian packages (guest)' .ci/install-packages .ci/packages-guest
	@$(STAGE) 'guest kernel' tests/guest/kernel/build $(CACHE)/guest

# Debian's own kernel in QEMU, for tests that are slow.
deps-guest-stock:
	@$(STAGE) 'Debian packages (guest-stock)' .ci/install-packages .ci/packages-guest-stock
	@$(STAGE) 'stock kernel' tests/guest/kernel/fetch-stock $(CACHE)/guest-stock

# ipsec-mb is for x86: without it the engine is built on OpenSSL alone.
deps-engine:
	@$(STAGE) 'Debian packages (engine)' .ci/install-packages .ci/packages-engine
	@if [ "$$(dpkg --print-architecture)" = amd64 ]; then .ci/install-packages .ci/packages-engine-amd64; fi

engine: deps-engine
	@$(STAGE) 'native engine' $(MAKE) --no-print-directory -C hw/engine BUILD=$(CACHE)/engine
	@$(STAGE) 'espd' $(MAKE) --no-print-directory -C hw/espd BUILD=$(CACHE)/engine
	@$(STAGE) 'traffic generator' $(MAKE) --no-print-directory -C hw/bench BUILD=$(CACHE)/engine

xdp: deps-xdp
	@$(STAGE) 'XDP programs' $(MAKE) --no-print-directory -C ebpf

venv: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(STAGE) 'Python environment' .ci/make-venv

# Of the API's messages the linter, and to its tests a client that we did not write.
$(BUF): | deps-buf
	@$(STAGE) 'buf $(BUF_VERSION)' npm install --silent --no-fund --no-audit --prefix $(CACHE)/buf-$(BUF_VERSION) @bufbuild/buf@$(BUF_VERSION)

docs: venv
	@$(STAGE) 'documentation' $(BIN)/python -m mkdocs build --quiet --strict --site-dir dist/docs

deb: engine xdp venv
	@packaging/build-deb dist

lock: venv
	$(BIN)/pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --upgrade --extra dev --allow-unsafe --generate-hashes --strip-extras \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-annotate --no-header \
	  -o requirements.lock pyproject.toml
	sed -i 's/^atheris==[^ ]*/& ; platform_machine == "x86_64"/' requirements.lock  # pip-compile drops it

clean:
	rm -rf ebpf/build .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
