# Everything runs in .venv, which is made on the first call and reused after.
PYTHON ?= python3
BIN := .venv/bin
HOST ?= langchain

.PHONY: demo test check clean

.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[langchain,llamaindex,redis,notebooks]" --group dev
	touch $@

demo: .venv/.installed
	$(BIN)/llm-costopt demo --host $(HOST)

test: .venv/.installed
	$(BIN)/python -m pytest

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv
