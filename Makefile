# `make test` and `make demo` are all that a fresh clone needs: each builds .venv first, from PyPI, without root.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Newer than pyproject.toml once .venv holds what that file asks for.
STAMP  := $(VENV)/.installed
# Everything of ours that ruff reads; mypy has its list in pyproject.toml.
SOURCES := $(wildcard gatewayd gatectl tests)
# A copy of the tree whose request path is compiled (see pyproject.toml): in place it would hide the source from edits.
COMPILED := build/compiled
# As many at a time as there are cores; each takes over from another's end when it has no tests left.
BESIDE := -n auto --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help venv run demo test test-all lint format compiled test-compiled bench bench-history completions clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## Build .venv with gatewayd, gatectl and what the tests need

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: gatewayd needs Python 3.11 or later; try make PYTHON=python3.11" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: $(STAMP) ## Keep a gateway on 127.0.0.1:8080 in front of two example APIs, until Ctrl-C
	@exec $(BIN)/python -m tests.playground

demo: $(STAMP) ## Show every gatectl command at work on real traffic, then clean up
	@exec $(BIN)/python -m tests.demo

test: $(STAMP) ## Run the tests (ARGS="-k name" for some of them)
	@$(BIN)/python -m pytest $(BESIDE) $(ARGS)

test-all: $(STAMP) ## Run the tests, the slow ones too
	@$(BIN)/python -m pytest -m '' $(ARGS)

lint: $(STAMP) ## Check format, style and types
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

format: $(STAMP) ## Format the code, and mend what ruff can
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

compiled: $(STAMP) ## Build a copy in build/compiled whose request path is compiled; needs a C compiler
	@rm -rf $(COMPILED) && mkdir -p $(COMPILED)
	@cp -r $(wildcard gatewayd gatectl tests completions pyproject.toml README.md CHANGELOG.md LICENSE Makefile) $(COMPILED)
	@cd $(COMPILED) && HATCH_BUILD_HOOKS_ENABLE=1 $(CURDIR)/$(BIN)/python -m pip wheel --quiet \
		--disable-pip-version-check --no-deps --wheel-dir .. .

test-compiled: compiled ## Run the tests of the data plane against the compiled copy
	@cd $(COMPILED) && $(CURDIR)/$(BIN)/python -m pytest tests/wire tests/policy tests/acceptance $(ARGS)

bench: $(STAMP) $(if $(shell command -v cc),compiled) ## Measure against nginx (ARGS="--cases all --json FILE"); needs wrk and nginx
	@exec $(BIN)/python -m tests.bench $(ARGS)

bench-history: $(STAMP) ## Make 100 million requests of history and time views of it (ARGS="--requests 1000000")
	@exec $(BIN)/python -m tests.bench.history $(ARGS)

completions: $(STAMP) ## Write anew what follows from gatectl's grammar: completions, man pages, the reference
	$(BIN)/python -m tests.reference

clean: ## Remove what make built: .venv, .demo, caches
	rm -rf $(VENV) .demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find gatewayd gatectl tests -name __pycache__ -type d -prune -exec rm -rf {} +
