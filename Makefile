# make demo | serve | test | check | test-slow | test-gpu | test-cluster | test-browser | chaos | images | sbom | bench | bench-search | clean
# Every target sets up what it needs in .venv first; a second run starts at once. `make PYTHON=python3.12 ...` picks the Python.

.PHONY: help setup demo serve test check test-fast test-integration test-slow test-gpu test-cluster test-browser chaos images sbom
.PHONY: bench bench-search clean
.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

# Where Python may not keep what it has compiled, each of the service's processes compiles torch and transformers anew.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?=
BIN := .venv/bin
# Options of `tuneyard serve`, such as ARGS="--port 8081", of `make chaos` or of `make images`.
ARGS ?=
# Folder of learning curves for bench-search: see benchmarks/tables.py.
TABLES ?=

help:
	@echo 'make demo          start the service, run a real study, pull its best checkpoint into ./best'
	@echo 'make serve         run the service in the foreground; options: make serve ARGS="--port 8081"'
	@echo 'make test          lint, types, import contracts and all tests but the slow ones and those in a browser'
	@echo 'make test-slow     the slow tests: whole services killed, full disks, databases away, broken nodes, object storage, other strategies and tasks'
	@echo 'make test-gpu      what the trainers promise, on a GPU'
	@echo 'make test-cluster  several hosts in network namespaces: a cut link, a dead node, a new one, TLS; as root'
	@echo 'make test-browser  the tests in a browser; they need Chromium'
	@echo 'make chaos         kill 100 processes of a service at work, and see that nothing is lost; make chaos ARGS="--seed 7"'
	@echo 'make check         lint, types, import contracts, Dockerfiles, manifests and known holes of the packages alone'
	@echo 'make images        build the images and run a study with what compose.yaml says, with buildah and podman; needs 10 GB of disk'
	@echo 'make sbom          list every package that is installed in build/sbom.json (CycloneDX)'
	@echo 'make bench         the measurements behind the figures in the README'
	@echo 'make bench-search  what the strategies find, beside others; make bench-search TABLES=FOLDER of learning curves'
	@echo 'make clean         remove .venv, caches and what the demo made'

# The first Python from 3.11 to 3.13 that can make a virtual environment.
setup:
	@for python in $(PYTHON) python3 python python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then \
	    exec "$$python" .ci/install.py; \
	  fi; \
	done; \
	echo 'No Python 3.11, 3.12 or 3.13 with venv was found: install one (Debian: python3 and python3-venv),' >&2; \
	echo 'or name it: make PYTHON=/where/it/is/python3 TARGET' >&2; \
	exit 1

demo: setup
	@exec $(BIN)/python -m service.demo

serve: setup
	@exec $(BIN)/tuneyard serve $(ARGS)

check: setup
	@echo 'ruff check'
	@$(BIN)/ruff check --quiet .
	@echo 'ruff format'
	@$(BIN)/ruff format --check --quiet . || { echo 'Some files are not formatted: run .venv/bin/ruff format .' >&2; exit 1; }
	@echo 'mypy'
	@$(BIN)/mypy --no-error-summary
	@echo 'import contracts'
	@$(BIN)/lint-imports --no-logo >.venv/imports.txt 2>&1 || { cat .venv/imports.txt; exit 1; }
	@echo 'docker'
	@$(BIN)/hadolint --config .hadolint.yaml docker/*.Dockerfile docker/*/*.Dockerfile
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker/compose.yaml
	@$(BIN)/python -m pytest -q tests/unit/test_kubernetes.py >.venv/kubernetes.txt 2>&1 || { cat .venv/kubernetes.txt; exit 1; }
	@echo 'known holes'
	@$(BIN)/python .ci/audit.py

test: check test-fast test-integration

# A worker a core. Tests that start processes come after the others; each worker has a service of its own, and while one waits
# for a process that starts, or for the mirror, the other one trains. Tests of one file stay together; the longest, of which a
# file has one alone, would come last and by itself if they were put in order.
test-fast: setup
	@echo 'tests without processes'
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not integration and not browser and not cluster'

test-integration: setup
	@echo 'tests with processes'
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'integration and not slow and not browser'

test-slow: setup
	@echo 'slow tests with processes'
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

test-gpu: setup
	@TUNEYARD_TEST_DEVICE=cuda $(BIN)/python -m pytest tests/trainers/test_contract.py tests/trainers/test_gpu.py

# As root: it makes network namespaces. PostgreSQL's package opens the folders above it to all users, which CI says is right.
test-cluster: setup
	@CI=true $(BIN)/python -m pytest -s -m cluster tests/cluster

test-browser: setup
	@$(BIN)/python -m pytest -m browser tests/browser

chaos: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos $(ARGS)

images: setup
	@exec $(BIN)/python docker/rehearse.py $(ARGS)

sbom: setup
	@mkdir -p build
	@$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --mc-type application --output-reproducible -o build/sbom.json
	@echo 'build/sbom.json'

bench: setup
	@$(BIN)/python -m benchmarks.search cost
	@$(BIN)/python -m benchmarks.search tables
	@$(BIN)/python -m benchmarks.forecast
	@$(BIN)/python -m benchmarks.attempts
	@$(BIN)/python -m benchmarks.trainers
	@for name in instant first-step memory load pull watchers; do $(BIN)/python -m benchmarks.service $$name || exit 1; done

bench-search: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.search tables $(if $(TABLES),--tables $(TABLES))

clean:
	@rm -rf .venv .tuneyard best build dist out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
