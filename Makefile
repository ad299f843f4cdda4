# Every target sets itself up: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3.11
ifeq (, $(shell command -v $(PYTHON)))
PYTHON := python3
endif
BIN := .venv/bin
SETUP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo demo-production demo-experiment test lowest chaos check lint docs bench clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/bin/python:
	$(PYTHON) -m venv .venv

# A stamp per set of extras, made anew when what is to be installed changes.
.venv/.installed-%: pyproject.toml constraints.txt | .venv/bin/python
	$(SETUP) --editable '.[$(subst +,$(comma),$*)]'
	@touch $@
comma := ,

demo: .venv/.installed-plot+dashboard ## The main job on a simulated streaming service, into demo/
	$(BIN)/coterie demo --out demo

demo-production: .venv/.installed-plot+dashboard ## Eight weeks of production on a simulated service, into demo-production/
	$(BIN)/coterie demo-production --out demo-production

demo-experiment: .venv/.installed-experiment+dashboard ## An experiment with simulated users, from plan to report, into demo-experiment/
	$(BIN)/coterie demo-experiment --out demo-experiment

test: .venv/.installed-test ## The tests, and every example in docstrings, README and docs
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

lowest: .venv/bin/python ## The tests with the lowest versions that pyproject.toml allows, in .venv-lowest (7 GB)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-lowest
	$(BIN)/uv pip compile --quiet --python .venv-lowest --resolution lowest-direct --extra test \
		--output-file .venv-lowest/lowest.txt pyproject.toml
	$(BIN)/uv pip install --quiet --python .venv-lowest --requirements .venv-lowest/lowest.txt
	$(BIN)/uv pip install --quiet --python .venv-lowest --no-deps --editable .
	.venv-lowest/bin/python -m pytest --numprocesses 2 --override-ini filterwarnings=default

chaos: .venv/.installed-test ## The long form of the kill test: 50 of each job, also on PostgreSQL (half an hour)
	$(BIN)/python benchmarks/chaos.py --kills 50 --postgres

lint: .venv/.installed-test+lint ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test ## What CI runs

docs: .venv/.installed-docs ## The documentation as a site, into site/, to be served: python -m http.server -d site
	$(BIN)/mkdocs build --strict

bench: .venv/.installed-plot+ann ## The benchmarks, their tables into docs/performance.md (an hour, 6 GiB of disk)
	mkdir -p bench
	$(BIN)/coterie bench training-step --json bench/step.json
	$(BIN)/coterie bench training-step --pia 0.3 --json bench/step-pia.json
	$(BIN)/coterie bench training-step --precision bf16 --json bench/step-bf16.json
	$(BIN)/coterie bench scoring --items 4000 --ease --json bench/scoring-4k.json
	$(BIN)/coterie bench scoring --items 20108 --ease --json bench/scoring-20k.json
	$(BIN)/coterie bench scoring --items 40981 --json bench/scoring-40k.json
	$(BIN)/coterie bench serving --items 20000 --json bench/serving.json
	$(BIN)/coterie bench scoring --items 1000000 --hidden 128 --latent 64 --users 500 --rounds 3 --json bench/scoring-1m.json
	$(BIN)/python benchmarks/growth.py --json bench/growth.json --plot docs/growth.png
	$(BIN)/python benchmarks/training_memory.py --json bench/training-memory.json
	$(BIN)/python benchmarks/scoring_memory.py --json bench/scoring-memory.json
	$(BIN)/python benchmarks/approximate_search.py --json bench/approximate.json
	$(BIN)/python benchmarks/prepare_growth.py --json bench/prepare.json
	$(BIN)/python benchmarks/import_times.py --json bench/import-times.json
	$(BIN)/python benchmarks/rivals.py --json bench/rivals.json
	$(BIN)/python benchmarks/time_to_quality.py --data ml-1m-shape --limit 120 --set training.start=spectral --set training.average=0.1 --json bench/quality-ml-1m.json
	$(BIN)/python benchmarks/performance_page.py bench docs/performance.md

clean: ## Remove everything made here but demo/, data/ and runs/
	rm -rf .venv .venv-lowest .mypy_cache .ruff_cache .pytest_cache .hypothesis site dist
