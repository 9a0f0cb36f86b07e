# Every target sets up what it needs: .venv from requirements.lock, once. `make install` does that alone.
PYTHON ?= python3
BIN := .venv/bin
# The folder of runs that `make ui` shows.
RUNS ?= runs
# Of `make chaos`: how many rounds, the number of the first, and what the faults are drawn from.
ROUNDS ?= 30
FIRST ?= 0
SEED ?= 1
# Processes that take whole files, in an order of our own, see tests/conftest.py: one has all that share a Ray and waits as
# long as it works, which leaves room for a third. Of what is slow, two have what starts Rays of its own and wait as well.
WHOLE_FILES := --no-loadscope-reorder
# The files in which something is slow: to collect all the others costs each process eight seconds more. Backwards, for the
# one that takes longest without a Ray, tests/fss/segmenter/test_portable.py, is not to be begun last.
SLOW = $(shell grep -rl 'mark\.slow' tests --include='test_*.py' | sort -r)

# What is compiled is kept, also where Python is told otherwise, as in many containers: tests start hundreds of processes,
# and a third of what importing torch or Ray costs each is compiling.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test test-slow chaos readme lint ui clean

install: .venv/ready

# The whole pipeline on an embedded corpus.
demo: .venv/ready
	$(BIN)/python -m jobs.pipeline experiment=demo

test: .venv/ready
	$(BIN)/python -m pytest -n 3 $(WHOLE_FILES) -m "not slow"

test-slow: .venv/ready
	$(BIN)/python -m pytest -n 4 $(WHOLE_FILES) -m slow --timeout 1800 $(SLOW)

# The whole pipeline on three machines while things go wrong, drawn from SEED; as root, see docs/guarantees.md.
chaos: .venv/ready
	$(BIN)/python -m tests.chaos --rounds $(ROUNDS) --first $(FIRST) --seed $(SEED)

# Everything that README.md says, the demo first.
readme: .venv/ready
	$(BIN)/python .ci/readme.py

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Compare runs in the browser: http://127.0.0.1:5000; the page of the last run is printed first.
ui: .venv/ready
	$(BIN)/python -m jobs.ui "root=$(RUNS)"

# Of what is installed most is never imported: modules are compiled when they first are.
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "expected Python 3.11 or newer, got " + sys.version.split()[0] + "; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
