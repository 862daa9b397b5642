# Everything a developer runs. `make demo` and `make test` need only Python 3.11+ and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
# Two workers: more of them only compete for what the tests themselves start. Each keeps to one
# thread (the tests of Chromium and of real processes have all), and to tests that follow each other,
# which share what was made for a module.
WORKERS ?= 2

# Tests start hundreds of Python processes, and each would compile perfkit anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help man demo test test-landing test-real test-browser lint format bench reference docs lock clean

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "perfkit needs Python 3.11 or later; set PYTHON=python3.12, say" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "no venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.run: requirements/run.lock pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements/run.lock
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.run
	$(PIP) install --quiet --require-hashes -r requirements/dev.lock
	@touch $@

demo: $(VENV)/.run  ## Capture, analyse and report a real workload (under a minute)
	$(BIN)/perfkit demo -o demo-report.html

test: $(VENV)/.dev  ## Run the tests
	POLARS_MAX_THREADS=1 $(PYTEST) -n $(WORKERS) --dist worksteal -m "not browser and not real and not slow"

test-landing: $(VENV)/.dev  ## Run the slow tests, and those of properties on more examples
	HYPOTHESIS_PROFILE=landing POLARS_MAX_THREADS=1 $(PYTEST) -n $(WORKERS) --dist worksteal \
	  -m "(slow or hypothesis) and not browser and not real"

test-real: $(VENV)/.dev  ## Run the tests that record real processes for long
	$(PYTEST) -m real

test-browser: $(VENV)/.dev  ## Run the tests that open reports in Chromium
	$(PYTEST) -m browser

lint: $(VENV)/.dev  ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## Measure, as ratios to a peer or a limit in the same run
	$(BIN)/python -m bench

man: $(VENV)/.run  ## Write man pages, to build/man
	$(BIN)/python -m tools.manpages build/man

reference: $(VENV)/.dev  ## Write the generated pages of docs/
	$(BIN)/python -m tools.reference

$(VENV)/.docs: requirements/docs.lock $(VENV)/.dev
	$(PIP) install --quiet --require-hashes -r requirements/docs.lock
	@touch $@

docs: $(VENV)/.docs  ## Make the documentation's site, in build/docs
	$(BIN)/python -m sphinx -W --keep-going -q -b dirhtml docs build/docs

lock: $(VENV)/.dev  ## Bring the locked versions up to date
	$(PIP) install --quiet uv
	for set in dev run docs; do \
	  case $$set in \
	    run) sorts="--extra demo --group build -c requirements/dev.lock";; \
	    dev) sorts="--extra demo --group dev --extra excel --extra grpc --extra history --extra instrument --extra notify --extra zstd";; \
	    docs) sorts="--group docs -c requirements/dev.lock";; \
	  esac; \
	  $(BIN)/uv pip compile pyproject.toml $$sorts --universal \
	    --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --no-header --upgrade --quiet -o requirements/$$set.lock >/dev/null || exit 1; \
	done

clean:  ## Remove what the other targets made
	rm -rf $(VENV) build dist demo-report.html demo.perfkit
