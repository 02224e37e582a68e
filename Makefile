# `make demo` and `make test` set everything up themselves; they need Python 3.11 or later with pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two threads is what the figures in this repository were measured with.
export OMP_NUM_THREADS ?= 2

.PHONY: demo test test-slow lint types imports bench check clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[scanpy]' --group dev
	touch $@

OUT ?= demo

demo: $(VENV)/installed
	$(BIN)/scircuit demo --out $(OUT)

# Two test processes with one thread each finish sooner than one with two.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m 'not slow'

# One thread each: bits are compared between one process and several, which need the same number of threads.
test-slow: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m slow

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/update_measured.py --check

types: $(VENV)/installed
	$(BIN)/mypy

imports: $(VENV)/installed
	$(BIN)/lint-imports

bench: $(VENV)/installed
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

check: lint types imports test

clean:
	rm -rf $(VENV) demo dist build
