# Every target works as the only command on a bare machine with Python 3.11+ and a package registry.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Two workers: the tests hold torch to one thread each.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test test-all test-peft lint format docs clean

demo: $(VENV)/.installed  ## eight small ViTs on real images: the paper's Table 1 and Figure 1, in minutes
	$(BIN)/skipless reproduce table1 --scale digits

test: $(VENV)/.installed  ## the default tests and every docstring's example
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.installed  ## the slow ones too
	$(PYTEST)

PEFT ?= 0.18.0
test-peft: $(VENV)/.installed  ## the adapters on the PEFT of a year ago, or on the one that PEFT= names
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --target $(VENV)/peft-$(PEFT) peft==$(PEFT)
	PYTHONPATH=$(VENV)/peft-$(PEFT) $(PYTEST) tests/adapters

lint: $(VENV)/.installed  ## ruff, pyright, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.installed-docs  ## HTML in docs/_build/html; the tutorial is run; warnings are errors
	$(BIN)/sphinx-build -W -q -b html docs docs/_build/html

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "skipless needs Python 3.11 or newer; make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) docs/_build dist build
