# `make help` lists the targets.  Nothing here needs root; everything goes into .venv/ and build/.

PYTHON ?= python3
JOBS   ?= 2

BIN := .venv/bin
# setuptools warns about every editable install at length.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# A recipe that fails leaves no half-written target behind.
.DELETE_ON_ERROR:
# pip writes one environment: its steps do not run side by side.
.NOTPARALLEL:
.DEFAULT_GOAL := help

.PHONY: help setup setup-train demo test coverage formal lint docs resources bench scaling bitstream-ulx3s clean

help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.setup  ## Make .venv with the tested versions; does nothing when it is up to date.

setup-train: .venv/.setup-train  ## Add PyTorch and transformers, for training and the tests marked `torch`.

demo: .venv/.setup  ## Generate text on simulated cards.
	$(BIN)/heddle demo

test: .venv/.setup  ## Run the tests, then print what the benches covered.
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup tests
	@if [ -e tests/bench_coverage.py ]; then $(MAKE) --no-print-directory coverage; \
	else echo "no table of coverage: tests/bench_coverage.py does not exist"; fi

# ---- Coverage: the table comes from tests/bench_coverage.py. ----
coverage: .venv/.setup  ## Print what the last run of the tests covered.
	$(BIN)/python tests/bench_coverage.py

formal: .venv/.setup  ## Prove what queues, counters, ports and links promise, and refute their mutants.
	$(BIN)/python -m pytest -n $(JOBS) -m formal tests

lint: .venv/.setup  ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/mypy sw/heddle hw/rtl_gen/spec sim/cardsim

docs: .venv/.setup-docs  ## Build the documentation as HTML in build/docs.
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

resources: .venv/.setup  ## Synthesise the u280 card with Yosys and write docs/resources.md; takes 20 minutes, again seconds.
	@echo "Synthesising the u280 card takes some twenty minutes; what has not changed is kept in build/netlists."
	$(BIN)/python sw/tools/resources.py

bench: .venv/.setup  ## Measure GPT-2 on the simulated u280 card and write docs/benchmarks.md; takes a quarter of an hour.
	$(BIN)/python sw/tools/benchmarks.py --jobs $(JOBS)

scaling: .venv/.setup  ## Estimate GPT-2 on rings of 1 to 8 u280 cards and write docs/scaling.md; takes ten minutes.
	$(BIN)/python sw/tools/scaling.py --jobs $(JOBS)

bitstream-ulx3s: .venv/.setup-ulx3s  ## Build the bitstream of the ULX3S with Yosys and nextpnr; takes about an hour.
	$(BIN)/python sw/tools/bitstream.py ulx3s

clean:  ## Remove what was built; .venv stays.
	rm -rf build

# ---- The environment.  The stamps follow the files that decide what is installed. ----

.venv/.setup: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Heddle needs Python 3.11 or newer, and $(PYTHON) is not: give one with make PYTHON=python3.11" >&2; exit 1; }
	@missing=; for tool in c++ make perl; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	  test -z "$$missing" \
	  || { echo "Verilator needs programs that are not installed:$$missing (Debian and Ubuntu: apt install g++ make perl)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv \
	  || { echo "$(PYTHON) cannot make a virtual environment (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PIP) pip setuptools
	$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

.venv/.setup-%: .venv/.setup
	$(PIP) --no-build-isolation --editable '.[$*]'
	@touch $@
