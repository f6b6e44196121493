# Each target sets up what it needs: a Python environment in .venv, made anew when setup.cfg changed.
#   make PYTHON=python3.12 test      another interpreter for a new .venv
#   make test PYTEST_ARGS='-k sse'   a part of the tests
#   make conformance UPSTREAM=URL    the suite with a server of yours, which must be running

PYTHON ?= python3
PYTEST_ARGS ?=
BIN := .venv/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The targets share one environment and one console; make -j gains nothing and must not break anything.
.NOTPARALLEL:
.PHONY: help run test check lint types imports configuration documentation conformance clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/stamp-run ## the demonstration: a real MCP client and server with the gateway between them
	$(BIN)/python -m scripts.demo

test: .venv/stamp-test ## all tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

conformance: .venv/stamp-test ## the official conformance suite, directly and through the gateway
	$(BIN)/python -m scripts.conformance $(if $(UPSTREAM),--upstream '$(UPSTREAM)')

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

.venv/stamp-run .venv/stamp-test .venv/stamp-check: .venv/stamp-%: setup.cfg pyproject.toml
	@$(PYTHON) scripts/environment.py $*

clean: ## remove .venv and everything else that was made
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
