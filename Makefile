# BYOL-TFX. `make` or `make help` lists what there is; docs/lanes.md tells how the environment is made.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help env run test test-fast lint lock docs docs-check bench-data bench-train clean

# floor or current; empty: what this system can load.
LANE ?=
VENV ?= .venv
# Root folder of `make run`.
ROOT ?= runs/demo
# More arguments for pytest, such as ARGS="-k loss -x".
ARGS ?=

export LANE VENV
BIN := $(VENV)/bin
# mypy refuses a folder without Python files.
SOURCES = $(shell find components trainer pipeline kubeflow tests benchmarks setup.py -name '*.py' 2>/dev/null | cut -d/ -f1 | sort -u)

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  LANE=floor|current  overrides the lane; VENV=DIR  puts the environment elsewhere"

env: ## Make the environment of this system's lane (once for each lock)
	@requirements/make_env.sh

run: env ## Pretrain, probe, gate and push an encoder on the embedded data set, into runs/demo
	@$(BIN)/byol run --preset demo --root "$(ROOT)"

test: env ## Run every test: unit, environment, component, e2e
	@$(BIN)/python -m pytest $(ARGS)

test-fast: env ## Run the unit tests and those of the environment only
	@$(BIN)/python -m pytest tests/unit tests/lanes $(ARGS)

lint: env ## Check style, format and types
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy $(SOURCES)

lock: ## Resolve requirements/*.in into *.lock (UPGRADE=1 takes the newest releases)
	@requirements/make_env.sh tools
	@requirements/lock.sh "$(CURDIR)/.tools/uv/bin/uv"

docs: env ## Write docs/settings.md anew, from the settings' dataclasses
	@$(BIN)/python -m pipeline.settings_page docs/settings.md

docs-check: env ## Run the commands of README, tutorials and guides in a fresh clone of the last commit
	@$(BIN)/python -m tests.docs_commands

bench-data: env ## Measure the data components on the full 60,000 images
	@$(BIN)/python -m benchmarks.data

bench-train: env ## Measure the compiled training step on this device
	@$(BIN)/python -m benchmarks.train

clean: ## Remove the environment, its tools and caches; runs/ and data/ stay
	@rm -rf "$(VENV)" .tools .pytest_cache .ruff_cache .mypy_cache .hypothesis build *.egg-info
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
