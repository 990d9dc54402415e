# The commands of a checkout. `make test` and `make demo` install first; the second time that takes no time.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
SEED ?= 0
STAMP := $(VENV)/.installed

# OpenEnv's packages, for the tests that its clients drive: they exclude each other and bring Gradio, which no client needs.
openenv = $(PY) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/openenv/$(1) $(2)==$(1) \
	|| echo "$(2) $(1) is not to be had; the tests with its client will be skipped"

.PHONY: help install test proof lint demo demo-control bench compose-secrets clean
.DEFAULT_GOAL := help

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

install: $(STAMP)  ## make .venv with everything in it, at the versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "turnwise needs Python 3.11 or newer: make PYTHON=python3.11 install")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time takes a few minutes)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dense,games,alfworld]' -c constraints.txt \
		|| echo "worlds that others wrote are not all to be had (some need a C compiler); their tests will be skipped"
	@$(call openenv,0.10.0,openenv)
	@$(call openenv,0.3.0,openenv-core)
	@touch $@

# One process a core, each with one thread: half of the tests wait for servers, the others compute.
test: install  ## run the fast tests
	@OMP_NUM_THREADS=1 $(PY) -m pytest -m "not slow" -n auto --dist loadfile

proof: install  ## run all tests at full counts
	@TURNWISE_PROOF=full $(PY) -m pytest

lint: install  ## check style, formatting, types and imports between rooms
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --quiet .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

demo: install  ## learn a task end to end on the CPU; writes runs/demo
	@$(PY) examples/demo.py --seed $(SEED) --out runs/demo

demo-control: install  ## the control run of the demo
	@$(PY) examples/demo.py --seed $(SEED) --out runs/demo-control --control

bench: install  ## measure server, rollout and trainer
	@for script in benchmarks/*.py; do echo "== $$script"; $(PY) $$script || exit 1; done

compose-secrets:  ## make the tokens that compose.yaml hands to containers; ROTATE=1 makes new ones
	@$(PYTHON) scripts/compose_secrets.py $(if $(ROTATE),--rotate)

clean:  ## remove what can be made again (not .venv, not runs)
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
