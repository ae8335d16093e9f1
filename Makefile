# Each target sets up .venv by itself on a fresh machine: python3 and make are all it takes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check -q
PACKAGE := pyproject.toml constraints.txt

.PHONY: demo test test-all coverage check docs bench clean

demo: $(VENV)/.demo-ready  ## make a small factory, fit, score, evaluate, write a report page
	@echo "== nearfar demo demo-out"
	$(BIN)/nearfar demo demo-out

# Files of tests are shared out to the cores; a file's tests stay together, because they share what is slow to make.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile

test: $(VENV)/.test-ready check  ## lint, types, and every test that is not slow by its nature
	@echo "== tests"
	$(PYTEST) -m "not slow"

test-all: test  ## the slow tests too: browsers, exports, clusters, whole runs
	@echo "== slow tests"
	$(PYTEST) -m slow

coverage: $(VENV)/.test-ready  ## all tests, with what they do not reach
	$(PYTEST) --cov --cov-report=term

check: $(VENV)/.test-ready
	@echo "== lint and types"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file benchmarks/mypy.ini benchmarks tools

docs: $(VENV)/.docs-ready  ## the documentation as a site, in site/
	@echo "== docs"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

bench: $(VENV)/.test-ready  ## measure; results go to benchmarks/results
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) demo-out site .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

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

$(VENV)/.docs-ready: $(PACKAGE) | $(VENV)/bin/python
	@echo "== installing what the documentation needs"
	$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@
