# Each target sets up .venv by itself on a fresh machine: python3 and make are all it takes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check -q
PACKAGE := pyproject.toml constraints.txt

.PHONY: demo test check bench clean

demo: $(VENV)/.demo-ready  ## make a small factory, fit, score, evaluate, write a report page
	@echo "== nearfar demo demo-out"
	$(BIN)/nearfar demo demo-out

test: $(VENV)/.test-ready check  ## lint, types, tests with coverage
	@echo "== tests"
	$(BIN)/python -m pytest --cov --cov-report=term

check: $(VENV)/.test-ready
	@echo "== lint and types"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.test-ready  ## measure; results go to benchmarks/results
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

$(VENV)/bin/python:
	@echo "== making $(VENV)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-ready: $(PACKAGE) | $(VENV)/bin/python
	@echo "== installing nearfar with pictures"
	$(PIP) install -c constraints.txt -e '.[pictures]'
	@touch $@

$(VENV)/.test-ready: $(PACKAGE) | $(VENV)/bin/python
	@echo "== installing nearfar with what the tests need"
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo-ready
