# `make install`, `make search` and `make test` set up .venv when it is missing; everything else is for developers.
# Packages have wheels for Python 3.11 and 3.12: the first of these that is found is used. PYTHON=... chooses another.
PYTHON ?= $(shell for name in python3.12 python3.11 python3 python; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$name && break; done)
# Without an NVIDIA device the CPU build of PyTorch, which is gigabytes smaller on Linux. TORCH=cuda asks for the other.
TORCH ?= $(if $(filter Linux,$(shell uname -s)),$(if $(wildcard /dev/nvidia0 /dev/dxg),cuda,cpu),cuda)
CPU_INDEX := https://download.pytorch.org/whl/cpu
BIN := .venv/bin

install: .venv/ready

search: .venv/ready
	$(BIN)/hostguide search configs/li-si.yaml --run runs/li-si

test: .venv/ready
	$(BIN)/python -m pytest

test-all: .venv/ready
	$(BIN)/python -m pytest -m ""

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/ready
	$(BIN)/python -m sphinx -W --keep-going -q -E docs build/docs
	@echo build/docs/index.html

# Known weaknesses of the pinned packages. It needs the internet; --strict makes it fail without an answer.
audit:
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet pip-audit
	.venv/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

.venv/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "hostguide needs Python 3.11 or 3.12, for which all its packages have wheels, and this \
	machine has $$(python3 --version 2>/dev/null || echo none). Install one (apt install python3.12-venv, brew install \
	python@3.12, or: uv python install 3.12), or name it: make install PYTHON=/path/to/python3.12" | tr -s ' \t'; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch $(if $(filter cpu,$(TORCH)),--retries 1 --timeout 15 --index-url $(CPU_INDEX)) \
		|| $(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

# `docs` is a folder too.
.PHONY: install docs search test test-all lint audit
