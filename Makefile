# Everything runs in a virtual environment in this folder, made on first use. `make help` lists the targets.
PYTHON ?= python3
TORCH ?= 2.13.0
VENV := .venv
BIN := $(VENV)/bin
PYTEST = $(BIN)/pytest -n $(or $(WORKERS),auto) --maxprocesses 8 --dist worksteal
SOURCES := setup.py pyproject.toml $(shell find csrc -type f 2>/dev/null)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help setup demo test test-slow test-network lint bench bench-track gpu profile resources clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.built ## the virtual environment, torch and the compiled extension

demo: setup ## build a real corpus, train with and without L_S, print the table: demo-results/
	@$(BIN)/transphere demo --out demo-results $(DEMO)

test: setup ## the test suite, a process a core; WORKERS=0 for one, TESTS=tests/test_philox.py selects
	@$(PYTEST) $(TESTS)

test-slow: setup ## what `make test` leaves out because it takes minutes
	@$(PYTEST) -m slow $(TESTS)

test-network: setup ## what `make test` leaves out because it downloads packages
	@$(BIN)/pytest -m network $(TESTS)

lint: setup ## ruff
	@$(BIN)/ruff check .

bench: setup ## ours beside the peers: benchmarks/results/<device>; QUICK=1 ends in a minute, BENCH="--ops vmf_sample" selects
	@$(BIN)/python benchmarks/run.py $(if $(QUICK),--quick) $(BENCH)

bench-track: setup ## our own times, saved; TRACK=--benchmark-compare beside those saved last
	@$(BIN)/pytest benchmarks/track.py --benchmark-only --benchmark-autosave --benchmark-columns=median,iqr,rounds $(TRACK)

gpu: ## on a machine with a GPU, without network: build, test, measure; benchmarks/results/<gpu>; GPU="--steps tests"
	@$(PYTHON) scripts/gpu.py $(if $(QUICK),--quick) $(GPU)

profile: setup ## where a training step of the demo spends its time: benchmarks/results/loss_step.md
	@$(BIN)/python benchmarks/profile_loss_step.py

resources: setup ## what every GPU kernel takes, without a GPU: benchmarks/results/resources.md
	@$(BIN)/python benchmarks/resources.py --write

clean: ## remove the environment and the build
	rm -rf $(VENV) build *.egg-info pyext/*.so

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "transphere needs Python 3.11 or later; name one: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no virtual environment could be made; on Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }

# The CPU build of torch unless there is a GPU. Its wheels have the local version +cpu: where they are at hand they are taken, then from
# PyTorch's own index; PyPI's wheel, with CUDA on Linux, is the last resort.
$(VENV)/.torch: $(VENV)/bin/python
	@echo "installing torch $(TORCH) into $(VENV)"
	@if nvidia-smi -L >/dev/null 2>&1; then $(PIP) torch==$(TORCH); else \
	  $(PIP) torch==$(TORCH)+cpu 2>/dev/null || $(PIP) torch==$(TORCH) --index-url https://download.pytorch.org/whl/cpu || $(PIP) torch==$(TORCH); fi
	@touch $@

$(VENV)/.built: $(VENV)/.torch $(SOURCES)
	@command -v $${CXX:-c++} >/dev/null || { echo "a C++ compiler is needed; on Debian and Ubuntu: sudo apt-get install g++"; exit 1; }
	@$(BIN)/python -c 'import os, sys, sysconfig as s; h = s.get_path("include") + "/Python.h"; sys.exit(0 if os.path.exists(h) else "Python headers are needed (" + h + "); on Debian and Ubuntu: sudo apt-get install python3-dev")'
	@echo "building transphere into $(VENV) (about two minutes the first time)"
	@$(PIP) "setuptools>=77" "pybind11>=2.13" ninja numpy
	@$(PIP) --no-build-isolation -e ".[training,test]"
	@touch $@
