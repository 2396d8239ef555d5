# `make demo` and `make test` are all that a fresh machine needs: Python 3.11+ with venv, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST_ARGS ?=

.PHONY: demo test end-to-end without-services lint up clean

demo: $(INSTALLED)
	$(BIN)/groundwork demo

# Side by side: end-to-end tests share one set of services, and for half of their time wait for it. With
# PYTEST_ARGS, one of the two may have no test to run (5).
test: $(INSTALLED)
	$(MAKE) --jobs=3 lint end-to-end without-services

end-to-end: $(INSTALLED)
	$(BIN)/python -m pytest tests/end_to_end $(PYTEST_ARGS) || [ $$? -eq 5 ]

without-services: $(INSTALLED)
	$(BIN)/python -m pytest tests --ignore=tests/end_to_end $(PYTEST_ARGS) || [ $$? -eq 5 ]

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

up: $(INSTALLED)
	$(BIN)/groundwork up

# The stamp comes last: an installation that was interrupted is begun again.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Groundwork needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
