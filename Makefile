# Each target sets up what it needs: a Python environment in .venv, made anew when setup.cfg changed.
#   make PYTHON=python3.12 test      another interpreter for a new .venv
#   make test PYTEST_ARGS='-k sse'   a part of the tests
#   make conformance UPSTREAM=URL    the suite with a server of yours, which must be running
#   make test COMPILED=1             the same with the compiled core; also run, conformance (docs/compiled.md)
#   make fuzz FUZZ_ARGS='--target json --inputs 10000'
#   make bench BENCH_ARGS=--quick    a look, in two minutes (docs/benchmarks.md)

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
FUZZ_ARGS ?=
INSTRUCTIONS_ARGS ?=
BIN := .venv/bin

# The compiled package goes before the sources, also for the programs that are started.
ifdef COMPILED
export PYTHONSAFEPATH := 1
export PYTHONPATH := $(CURDIR)/build/compiled:$(CURDIR)
core := compiled
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The targets share one environment and one console; make -j gains nothing and must not break anything.
.NOTPARALLEL:
.PHONY: help run test check lint types imports configuration documentation conformance bench bench-instructions fuzz compiled wheel clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/stamp-run $(core) ## the demonstration: a real MCP client and server with the gateway between them
	$(BIN)/python -m scripts.demo

test: .venv/stamp-test $(core) ## all tests
	$(BIN)/python -m pytest $(if $(COMPILED),-o pythonpath=) $(PYTEST_ARGS)

conformance: .venv/stamp-test $(core) ## the official conformance suite, directly and through the gateway
	$(BIN)/python -m scripts.conformance $(if $(UPSTREAM),--upstream '$(UPSTREAM)')

bench: .venv/stamp-bench compiled ## calls, streams, large results: the gateway beside nginx, haproxy and bare relays
	$(BIN)/python -m scripts.bench $(BENCH_ARGS)

bench-instructions: .venv/stamp-run ## what the core costs on fixed inputs, in instructions, beside the last release (docs/fuzzing.md)
	$(BIN)/python -m scripts.instructions $(INSTRUCTIONS_ARGS)

fuzz: .venv/stamp-test ## properties of all that reads foreign bytes, on more than 10^6 inputs (docs/fuzzing.md)
	$(BIN)/python -m scripts.fuzz $(FUZZ_ARGS)

compiled: .venv/stamp-compile ## the package with its core compiled, in build/compiled
	$(BIN)/python scripts/compiled.py

wheel: .venv/stamp-compile ## the same as a wheel for this Python and platform, in dist: what belongs into production
	$(BIN)/python scripts/compiled.py --wheel

check: lint types imports configuration documentation ## everything that can be said about the code without running it

lint: .venv/stamp-check ## style and common mistakes (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/stamp-check ## mypy --strict
	$(BIN)/mypy

imports: .venv/stamp-check ## which room may import which (setup.cfg, [importlinter])
	$(BIN)/lint-imports

configuration: .venv/stamp-check ## mcpgw check on config/gateway.yaml and every example
	$(BIN)/mcpgw check config/gateway.yaml
	$(BIN)/python -m pytest -q tests/test_house.py -k configuration

documentation: .venv/stamp-check ## what the documents say of the code is so (tests/test_docs.py)
	$(BIN)/python -m pytest -q tests/test_docs.py tests/test_rules.py

.venv/stamp-run .venv/stamp-test .venv/stamp-check .venv/stamp-bench .venv/stamp-compile: .venv/stamp-%: setup.cfg pyproject.toml scripts/environment.py
	@$(PYTHON) scripts/environment.py $*

clean: ## remove .venv and everything else that was made
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
