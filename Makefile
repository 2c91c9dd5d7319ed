# Every target does its own set-up; the first one takes minutes (torch and its CUDA libraries are some 6 GB).
PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin

PEERS := .venv-peers/bin

.PHONY: setup demo test chaos lint lock bench peers
.DEFAULT_GOAL := setup

setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || (apt-get update && apt-get install -y python3-venv && $(PYTHON) -m venv .venv)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	touch $@

demo: setup
	$(BIN)/python -m pipeline.shard toy --size 64
	$(BIN)/python -m pipeline.launch --grid demo --jobs $(JOBS)
	$(BIN)/python -m pipeline.report --grid demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What needs Slurm runs alone afterwards: it starts real daemons and watches the clock.
test: lint
	$(BIN)/pytest --ignore tests/slurm --numprocesses $(JOBS) --dist loadfile
	$(BIN)/pytest tests/slurm

# Ours beside its peers, one after another, on a machine that has nothing else to do; about half an hour.
bench: setup peers
	$(BIN)/python -m pipeline.bench

# What ours is measured beside, in an environment of its own: their dependencies do not go with ours. ffcv is built here
# where its headers are or can be installed; where it cannot be built, the benchmarks say so and leave it out.
peers: .venv-peers/ready

HEADERS := libopencv-dev libturbojpeg0-dev pkg-config g++

.venv-peers/ready: pipeline/benchmarks/peers.txt pipeline/benchmarks/ffcv.txt
	$(MAKE) setup
	test -x $(PEERS)/python || $(PYTHON) -m venv .venv-peers
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(PEERS)/python -r pipeline/benchmarks/peers.txt
	pkg-config --exists opencv4 libturbojpeg || (apt-get update && apt-get install -y --no-install-recommends $(HEADERS)) || true
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(PEERS)/python -r pipeline/benchmarks/ffcv.txt || \
		echo "ffcv cannot be built here and is left out; it needs $(HEADERS)"
	touch $@

# A real Slurm on this machine (root on Debian), a grid on it, and everything that can go wrong; about ten minutes.
chaos: setup
	slurm/devcluster/up
	$(BIN)/python tests/slurm/chaos.py --events 33 --seed 3

# Exact versions and hashes for Python 3.10 and later; no address may stand in the file.
lock:
	$(BIN)/uv pip compile --universal --python-version 3.10 --generate-hashes --no-header --quiet --all-extras pyproject.toml -o requirements.lock
