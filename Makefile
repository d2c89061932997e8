# Thin: each target calls one command of the project's own. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test test-all faults nemesis load benchmark fault-shop check lock proto clean setup setup-dev

PORT ?= 8000
# Order in which the tests run; a fixed one, so that a red run is red again. `make test SEED=7` shuffles otherwise.
SEED ?= 1

# A shop of its own for the fault matrix: small, so that training takes a minute and its models answer in milliseconds.
FAULT_SHOP ?= .tutti/fault-shop

# What `make load` does; docs/load-testing.md says what the shapes are for.
DATA ?= $(FAULT_SHOP)
SHAPE ?= step
MINUTES ?= 2
RATE ?= 20

# The first Python that runs and is new enough; a shim that only says it is not installed does not run.
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: setup ## Build the embedded shop, train, start everything, show a page (PORT=8000)
	@exec $(BIN)/tutti demo --port $(PORT)

test: setup-dev ## Run the whole offline suite
	@$(BIN)/python -m pytest -q -p tests.support.skip_report --randomly-seed=$(SEED)

test-all: test fault-shop ## The suite, then ten minutes of the fault matrix on real processes
	$(BIN)/python -m loadtests.faults --data $(FAULT_SHOP) --minutes 10 --phase 6

faults: fault-shop ## The whole fault matrix; the report goes to docs/results/
	$(BIN)/python -m loadtests.faults --data $(FAULT_SHOP) --report docs/results/faults.md

nemesis: fault-shop ## Ten minutes of random faults; SEED=7 plays others
	$(BIN)/python -m loadtests.faults.nemesis --data $(FAULT_SHOP) --seed $(SEED)

load: $(if $(filter $(FAULT_SHOP),$(DATA)),fault-shop,setup-dev) ## Two minutes of shoppers up to the breaking point; SHAPE=burst MINUTES=1 RATE=40 DATA=DIR
	$(BIN)/python -m loadtests.shoppers --data $(DATA) --shape $(SHAPE) --minutes $(MINUTES) --rate $(RATE) \
		--report .tutti/load/$(SHAPE).html

benchmark: setup-dev ## Time the functions every request goes through; ARGS="--benchmark-compare" against the last
	$(BIN)/python -m pytest tests/benchmarks -q -p no:randomly --benchmark-enable --benchmark-autosave \
		--benchmark-storage file://.tutti/benchmarks --benchmark-columns min,median,iqr,rounds $(ARGS)

fault-shop: setup-dev
	@test -f $(FAULT_SHOP)/dataset.json || $(BIN)/tutti data synth --out $(FAULT_SHOP) --shoppers 300 --items 250 --days 120
	@$(BIN)/tutti train --data $(FAULT_SHOP)

check: setup-dev ## Lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: setup-dev ## Resolve pyproject.toml into the committed locks
	$(BIN)/python tools/lock.py

proto: setup-dev ## Generate the Python code of protos/
	$(BIN)/python tools/protos.py

clean: ## Remove caches and what was built; the virtual environment and .tutti/ stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find orchestrator services protos tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

setup setup-dev:
	@test -n "$(PYTHON)" || { echo "setup: no Python 3.11 or newer on PATH; install one and try again" >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py $(if $(findstring dev,$@),dev,runtime)
