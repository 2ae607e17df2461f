# `make install`, `make search` and `make test` set up .venv when it is missing; everything else is for developers.
PYTHON ?= python3
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
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

# `docs` is a folder too.
.PHONY: install docs search test test-all lint audit
