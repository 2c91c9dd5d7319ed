# Every target does its own set-up; the first takes minutes (torch and its CUDA libraries have about 6 GB).
PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin

PEERS := .venv-peers/bin

.PHONY: help setup demo test chaos lint lock lowest docs bench peers mlflow trackio gpu
.DEFAULT_GOAL := setup

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready ## install the locked dependencies and the project into .venv

.venv/ready: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || (apt-get update && apt-get install -y python3-venv && $(PYTHON) -m venv .venv)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	touch $@

demo: setup ## from nothing to a results table, on generated images; minutes
	$(BIN)/python -m pipeline.shard toy --size 64
	$(BIN)/python -m pipeline.launch --grid demo --jobs $(JOBS)
	$(BIN)/python -m pipeline.report --grid demo

lint: setup ## style, types, import layers, lengths of files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -s tests/test_architecture.py -k longest

# The tests that need a Slurm wait more than they compute, so they run at the same time; their output comes at the end.
test: lint mlflow trackio ## lint and every test
	@mkdir -p build
	@$(BIN)/pytest tests/slurm > build/slurm-tests.log 2>&1 & slurm=$$!; \
		$(BIN)/pytest --ignore tests/slurm --numprocesses $(JOBS) --dist loadfile; others=$$?; \
		echo "the tests on a real Slurm (build/slurm-tests.log as they run):"; \
		wait $$slurm; status=$$?; cat build/slurm-tests.log; exit $$((others | status))

docs: setup ## these documents as a site in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Measure this project and its peers, one after another, on an otherwise idle machine; about half an hour.
bench: setup peers ## measure this project and its peers; half an hour
	$(BIN)/python -m pipeline.bench

# Ask a GPU everything that only a GPU can answer, the most valuable first; the same command continues. It runs in the
# given PYTHON if that has torch (a machine without a network), else in .venv. REHEARSE=1: in little, on the CPU.
# MINUTES: for the rows of Table 5. RAW: the folder of the raw data. OUT: the folder of the results.
RAW ?= ../shared/data
MINUTES ?= 60
OUT ?= reports/bench
gpu: ## ask a GPU what only a GPU can answer; MINUTES, RAW, OUT, REHEARSE=1
	@if why=$$($(PYTHON) -c "import torch, timm" 2>&1); then run=$(PYTHON); else run=$(BIN)/python; \
		echo "$(PYTHON) is not used, .venv is: $$(echo "$$why" | tail -n 1)"; $(MAKE) setup || exit 1; fi; \
		$$run -m pipeline.bench gpu --raw $(RAW) --minutes $(MINUTES) --out $(OUT) $(if $(REHEARSE),--quick)

# The peers of the benchmarks, in an environment of their own: their dependencies conflict with ours. ffcv is built here
# if its headers are installed or can be; if it cannot be built, the benchmarks say so and leave it out.
peers: .venv-peers/ready ## install the peers of the benchmarks

HEADERS := libopencv-dev libturbojpeg0-dev pkg-config g++

.venv-peers/ready: pipeline/benchmarks/peers.txt pipeline/benchmarks/ffcv.txt
	$(MAKE) setup
	test -x $(PEERS)/python || $(PYTHON) -m venv .venv-peers
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(PEERS)/python -r pipeline/benchmarks/peers.txt
	pkg-config --exists opencv4 libturbojpeg || (apt-get update && apt-get install -y --no-install-recommends $(HEADERS)) || true
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(PEERS)/python -r pipeline/benchmarks/ffcv.txt || \
		echo "ffcv cannot be built here and is left out; it needs $(HEADERS)"
	touch $@

# An MLflow server for the tests of `track`, in an environment of its own: it wants an older pyarrow than ours. Where it
# cannot be installed, those tests are skipped.
mlflow: .venv-mlflow/ready ## a server for the tests of track, in an environment of its own

MLFLOW := .venv-mlflow/bin

.venv-mlflow/ready: requirements.lock
	$(MAKE) setup
	test -x $(MLFLOW)/python || $(PYTHON) -m venv --without-pip .venv-mlflow
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(MLFLOW)/python \
		"$$(sed -n 's/^mlflow-skinny\(==[0-9.]*\).*/mlflow\1/p' requirements.lock)" && \
		rm -f .venv-mlflow/empty.db && \
		$(MLFLOW)/mlflow db upgrade sqlite:///.venv-mlflow/empty.db && touch $@ || \
		echo "MLflow's server cannot be installed here; the tests that need it are skipped"

# Trackio with what `track` needs, in an environment of its own: it wants an older Pillow than the lock has.
trackio: .venv-trackio/ready ## Trackio for `track --to trackio`, in an environment of its own

TRACKIO := .venv-trackio/bin

.venv-trackio/ready:
	$(MAKE) setup
	test -x $(TRACKIO)/python || $(PYTHON) -m venv --without-pip .venv-trackio
	$(BIN)/uv pip install --quiet --python $(TRACKIO)/python "trackio>=0.43,<0.44" numpy "tomli; python_version < '3.11'" && \
		touch $@ || echo "Trackio cannot be installed here; the test that needs it is skipped"

# Start a real Slurm on this machine (root on Debian), run a grid on it and disturb it in every way; about ten minutes.
chaos: setup ## a real Slurm on this machine, disturbed in every way (root on Debian); ten minutes
	slurm/devcluster/up
	$(BIN)/python tests/slurm/chaos.py --events 33 --seed 3

# Exact versions and hashes for Python 3.10 and later; the file must not contain an address.
lock: ## write requirements.lock again
	$(BIN)/uv pip compile --universal --python-version 3.10 --generate-hashes --no-header --quiet --all-extras pyproject.toml -o requirements.lock

# The lowest versions that pyproject.toml allows, in an environment of their own, with the tests that need no scheduler.
# Old libraries warn of new ones that they use: warnings are no errors here. LOWEST_PYTHON: a version or an interpreter.
LOWEST_PYTHON ?= 3.10
LOWEST_TESTS ?= tests/core tests/runs tests/study tests/data tests/learn tests/models tests/results tests/api \
	tests/jobs/test_launch.py tests/jobs/test_engines.py

lowest: setup ## the tests with the lowest versions that are allowed (LOWEST_PYTHON, LOWEST_TESTS)
	$(BIN)/uv venv --quiet --allow-existing --python $(LOWEST_PYTHON) .venv-lowest || \
		{ echo "Python $(LOWEST_PYTHON) was not found; give its path: make lowest LOWEST_PYTHON=/path/of/python3.10"; exit 1; }
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --python .venv-lowest/bin/python --no-header --no-annotate \
		--extra dev pyproject.toml -o .venv-lowest/requirements.txt
	$(BIN)/uv pip install --quiet --python .venv-lowest/bin/python -r .venv-lowest/requirements.txt
	$(BIN)/uv pip install --quiet --python .venv-lowest/bin/python --no-deps -e .
	.venv-lowest/bin/python -m pytest -W default $(LOWEST_TESTS)
