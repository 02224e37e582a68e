# `make demo` and `make test` set everything up themselves; they need Python 3.11 or later with pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two threads is what the figures in this repository were measured with.
export OMP_NUM_THREADS ?= 2
# Modules are compiled once, not again in every process that the tests start.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-slow test-browser test-numerics test-oldest fuzz lint types imports docs tutorial bench check clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[scanpy]' --group dev
	touch $@

OUT ?= demo

demo: $(VENV)/installed
	$(BIN)/scircuit demo --out $(OUT)

# Two test processes with one thread each finish sooner than one with two; a file stays in one, with its fixtures.
PYTEST := $(BIN)/pytest -q --durations=10
APART := -n 2 --dist loadfile

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(PYTEST) $(APART) -m 'not slow'

# One thread each: bits are compared between one process and several, which need the same number of threads.
test-slow: $(VENV)/installed
	OMP_NUM_THREADS=1 $(PYTEST) $(APART) -m slow

# The report in Chromium, where there is one; part of the slow tests. Leaves pictures of every screen.
test-browser: $(VENV)/installed
	SCIRCUIT_SCREENSHOTS=build/screenshots $(PYTEST) -m slow tests/report/test_browser.py

# What depends on the kernels: engines, SAEs, tokenizers, statistics. CI varies ATEN_CPU_CAPABILITY and OMP_NUM_THREADS.
NUMERICS := tests/stats tests/sae tests/cells/test_tokenizers.py \
  $(addprefix tests/tracing/test_,engines.py local.py attention.py floor.py row_noise.py interventions.py precision.py)

# A thread that waits for work must not keep another from it, on cores that the threads share with others.
test-numerics: $(VENV)/installed
	OMP_WAIT_POLICY=passive $(PYTEST) $(if $(filter 1,$(OMP_NUM_THREADS)),$(APART)) -m 'not slow' $(NUMERICS)

# The oldest versions that pyproject.toml declares. What these pull in is new, and may warn of how old they are.
OLDEST := .venv-oldest
$(OLDEST)/installed: pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet uv
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct --editable '.[scanpy]' \
	  --group dev
	touch $@

TESTS ?= tests
test-oldest: $(OLDEST)/installed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/pytest -q $(APART) -m 'not slow' -o filterwarnings=default $(TESTS)

# The property tests with examples that nobody has seen; `make test` draws the same ones every time.
fuzz: $(VENV)/installed
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 -m hypothesis --hypothesis-profile fuzz

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive src scripts
	$(BIN)/python scripts/update_measured.py --check

types: $(VENV)/installed
	$(BIN)/mypy

imports: $(VENV)/installed
	$(BIN)/lint-imports

# The documentation site, in build/site; a page that does not resolve is an error.
$(VENV)/docs: $(VENV)/installed
	$(BIN)/pip install --quiet --group docs
	touch $@

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Run the tutorial's notebook anew and keep what it prints and draws.
tutorial: $(VENV)/docs
	$(BIN)/python scripts/run_tutorial.py

bench: $(VENV)/installed
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

check: lint types imports test

clean:
	rm -rf $(VENV) $(OLDEST) demo dist build
