# Two commands: `make demo` and `make test`. Both set up .venv first.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
APSTARS ?= $(DEMO)/survey/redux
SCRATCH ?= build/bench
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test setup lint types layers coverage faults slurm slow docs hats wheel bench clean

demo: setup
	$(BIN)/apogee-batch demo $(DEMO)

test: setup
	$(BIN)/python -m pytest

setup: $(INSTALLED)

KERNEL := setup.py $(wildcard apogee_batch/inference/kernel/*.h apogee_batch/inference/kernel/*.cpp)

$(INSTALLED): pyproject.toml constraints.txt $(KERNEL)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy
	$(BIN)/mypy --follow-imports=silent --ignore-missing-imports --config-file= tests/bench/*.py

layers: setup
	$(BIN)/lint-imports

coverage: setup
	$(BIN)/python -m pytest --cov --cov-report=term

faults: setup
	$(BIN)/python -m pytest tests/faults -o addopts='-ra --strict-markers --strict-config'

# Starts a Slurm of its own; what is missing for it: .ci/install_slurm, as root.
slurm: setup
	$(BIN)/python -m pytest tests/slurm -o addopts='-ra --strict-markers --strict-config'

slow: setup
	$(BIN)/python -m pytest -m 'slow or fault or slurm'

# The documents: tables and reference as the code is, every code block run, the pages built without a warning.
docs: $(VENV)/.docs-installed
	$(BIN)/python -m pytest tests/test_docs.py tests/test_documents.py tests/docs -o addopts='-ra --strict-markers --strict-config'
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs

$(VENV)/.docs-installed: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,docs]'
	touch $@

# What a user gets from `pip install`, used where there is no checkout.
wheel: setup
	VENV=$(VENV) .ci/check_wheel

# The catalogue as HATS, made and opened by hats-import and lsdb.
hats: $(VENV)/.hats-installed
	$(BIN)/python -m pytest tests/hats -o addopts='-ra --strict-markers --strict-config'

$(VENV)/.hats-installed: $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,hats]' lsdb
	touch $@

# A quarter of an hour on a machine that does nothing else; APSTARS is a folder of apStar files.
bench: setup
	mkdir -p $(SCRATCH)
	$(BIN)/python tests/bench/bench_engines.py
	$(BIN)/python tests/bench/bench_kernel.py --processes 2
	$(BIN)/python tests/bench/bench_training.py
	$(BIN)/python tests/bench/bench_read_apstar.py $(APSTARS)
	$(BIN)/python tests/bench/bench_store.py $(APSTARS)
	$(BIN)/python tests/bench/bench_ingest.py $(APSTARS)
	$(BIN)/python tests/bench/bench_startup.py $(SCRATCH)/startup
	$(BIN)/python tests/bench/bench_scale.py $(SCRATCH)/scale
	$(BIN)/python tests/bench/bench_protocol.py $(SCRATCH)/protocol --pairs 3

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
