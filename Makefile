# Every target builds .venv when it is missing, or when a package's dependencies have changed.
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := ml-agents-envs/pyproject.toml ml-agents/pyproject.toml ml-agents-trainer-plugin/pyproject.toml

.PHONY: train test test-fast test-versions torture soak lint bench bench-check docs clean
.DEFAULT_GOAL := help

help:
	@echo "make train   train an agent to balance a ball (less than a minute)"
	@echo "make test    run all tests"
	@echo "make test-versions"
	@echo "             test mlagents_envs alone on other versions of Python and its dependencies (minutes)"
	@echo "make torture kill runs, damage their files and fill their disk, and see that nothing is lost (10 minutes)"
	@echo "make soak    see that a long run keeps its size (10 minutes)"
	@echo "make lint    check style and types"
	@echo "make bench   measure speed and memory"
	@echo "make bench-check"
	@echo "             see that no workload has become slower than it was, by its ratios (20 minutes)"
	@echo "make docs    build the manual into site/"

.venv/installed: constraints.txt requirements-dev.txt $(PACKAGES)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -r requirements-dev.txt \
		-e "./ml-agents-envs[builtin]" -e "./ml-agents[plot]" -e ./ml-agents-trainer-plugin
	@touch $@

train: .venv/installed
	$(BIN)/mlagents-learn config/ppo/3DBall.yaml --env 3DBall --run-id first-run --force

test: .venv/installed
	$(BIN)/python -m pytest -n auto --dist loadgroup

test-fast: .venv/installed
	$(BIN)/python -m pytest -n auto -m "not learning and not install"

test-versions: .venv/installed
	$(BIN)/python tests/version_matrix.py

torture: .venv/installed
	$(BIN)/python tests/torture.py

soak: .venv/installed
	$(BIN)/python tests/soak.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p mlagents_envs -p mlagents -p mlagents_trainer_plugin
	$(BIN)/mypy benchmarks

bench: .venv/installed
	$(BIN)/python -m benchmarks

bench-check: .venv/installed
	$(BIN)/python -m benchmarks.check

docs: .venv/installed
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv site results
