# What contributors run. CI (.ci/run) runs check, test and test-rest; the last two together are test-all.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?= -n 2

# Without a working NVIDIA driver, PyTorch is pinned too, to the version whose CPU build the tests ran with.
HAS_GPU := $(shell nvidia-smi -L >/dev/null 2>&1 && echo yes)
CONSTRAINTS := -c constraints.txt $(if $(HAS_GPU),,-c constraints-cpu.txt)

# Full coverage of these needs a real model or a GPU, so no percentage is required of them.
NOT_COUNTED := agentft/training/*,agentft/models/*

.DEFAULT_GOAL := help
.PHONY: help venv quickstart test test-rest test-all check bench mutants format tree clean

help:
	@echo "make venv         install agentft into .venv"
	@echo "make quickstart   the whole loop once: data, training, evaluation before and after"
	@echo "make test         run the tests that are not marked slow"
	@echo "make test-all     run all tests, with a gate on the coverage"
	@echo "make check        ruff, mypy, import-linter"
	@echo "make bench        measure the speed of parsing, preparation and starting"
	@echo "make mutants      report code changes that no test notices (hours; ONLY=agentft/metrics/matching.py: minutes)"
	@echo "make tree         list every module and what it does"
	@echo "make format       let ruff rewrite the files, and bring docs/settings.md up to date"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: agentft needs Python 3.11 or newer, and $(PYTHON) is older or missing;" \
	       "try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@# The distribution had this name once, and the package index has a stranger's under it: never keep both.
	$(BIN)/python -m pip uninstall --quiet --yes agentft 2>/dev/null
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) -e '.[dev]'
	@touch $(STAMP)

quickstart: $(STAMP)
	$(BIN)/agentft quickstart

# With one thread each, the two workers do not compete for the cores: that halves the time.
PYTEST := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest $(PYTEST_ARGS)

# Compiled files are kept, even where the environment says otherwise: the tests start hundreds of processes. Only slow
# tests use schemathesis, whose plugin takes seconds to load.
# COVERAGE=on (test-all): measures branches, which makes the tests half as fast, and fails below 90 %.
test: $(STAMP)
	PYTHONDONTWRITEBYTECODE= $(PYTEST) -m 'not slow' -p no:schemathesis $(if $(COVERAGE),--cov --cov-report=)
	$(if $(COVERAGE),$(BIN)/coverage report --skip-covered --skip-empty --show-missing --omit='$(NOT_COUNTED)' --fail-under=90)

# What `make test` leaves out: the real small model, several processes, generated requests, whole corpora.
# A file's tests stay in one worker, since many share what takes a minute to make.
test-rest: $(STAMP)
	$(PYTEST) -m slow $(if $(findstring -n,$(PYTEST_ARGS)),--dist loadfile --no-loadscope-reorder)

test-all:
	$(MAKE) test COVERAGE=on
	$(MAKE) test-rest

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The other files of tests/bench need a GPU, a run, or hours; each says so in its first lines.
bench: $(STAMP)
	@for name in parsing preparation start growth server chat; do \
	  echo "== tests/bench/bench_$$name.py"; $(BIN)/python -m tests.bench.bench_$$name || exit 1; \
	done

mutants: $(STAMP)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants $(ONLY)

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/python -m tests.docs.write_settings

tree: $(STAMP)
	@$(BIN)/python -m tests.tree

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage
