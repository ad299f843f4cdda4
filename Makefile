# Every target sets itself up: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3.11
ifeq (, $(shell command -v $(PYTHON)))
PYTHON := python3
endif
BIN := .venv/bin
SETUP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check lint docs bench clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/bin/python:
	$(PYTHON) -m venv .venv

# A stamp per set of extras, made anew when what is to be installed changes.
.venv/.installed-%: pyproject.toml constraints.txt | .venv/bin/python
	$(SETUP) --editable '.[$(subst +,$(comma),$*)]'
	@touch $@
comma := ,

demo: .venv/.installed-plot ## The main job on a simulated streaming service, into demo/
	$(BIN)/coterie demo --out demo

test: .venv/.installed-test ## The tests, and every example in docstrings, README and docs
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

lint: .venv/.installed-test+lint ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test ## What CI runs

docs: .venv/.installed-docs ## The documentation as a site, into site/
	$(BIN)/mkdocs build --strict

bench: .venv/.installed-plot ## The benchmarks of docs/performance.md (about 3 minutes)
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/training_step.py --pia 0.3
	$(BIN)/python benchmarks/prepare_growth.py

clean: ## Remove everything made here but demo/, data/ and runs/
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis site dist
