# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format type audit check-configs benchmark pictures clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv and install skinseg with exactly the pinned packages

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("skinseg needs Python 3.11 or later, found " + sys.version.split()[0] + \
		"; say which with make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	@echo "Installing skinseg into .venv: several GB of packages, some minutes."
	$(BIN)/pip install $(if $(CI),--quiet,) --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## train and score a small network on drawn images
	$(BIN)/python -m skinseg.train +experiment=demo

test: $(STAMP) ## the tests, without the slow ones
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(STAMP) ## all tests
	$(BIN)/python -m pytest -n 2

lint: $(STAMP) ## ruff: mistakes and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## ruff: mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(STAMP) ## mypy --strict
	$(BIN)/mypy

# A package that no advisory could be looked up for is an error, not a clean bill; the floors are what
# pyproject.toml still admits.
AUDIT := $(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off --requirement
FLOORS := .venv/floors.txt

audit: $(STAMP) ## known advisories of the pinned packages and of the oldest ones that are admitted
	$(AUDIT) constraints.txt
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --no-deps --all-extras --no-header --no-annotate \
		--no-emit-index-url pyproject.toml --output-file $(FLOORS)
	$(AUDIT) $(FLOORS)

check-configs: $(STAMP) ## compose, check and instantiate every option and every experiment
	$(BIN)/python -m pytest -n 2 tests/test_configs.py

# The peers come from an environment of their own that also sees the packages of .venv: torch alone is several
# gigabytes, and everybody runs on the same one.
BENCHMARK := .venv-benchmark
BENCHMARK_STAMP := $(BENCHMARK)/.installed

$(BENCHMARK_STAMP): $(STAMP) benchmarks/requirements.txt
	$(BIN)/python -m venv $(BENCHMARK)
	@$(BENCHMARK)/bin/python -c 'import pathlib, sys, sysconfig; \
		(pathlib.Path(sysconfig.get_path("purelib")) / "skinseg.pth").write_text( \
		f"import site; site.addsitedir({sys.argv[1]!r})\n")' \
		"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	$(BENCHMARK)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--requirement benchmarks/requirements.txt
	@touch $@

benchmark: $(BENCHMARK_STAMP) ## speed beside other libraries; options: make benchmark ARGS='--size 256 --rounds 3'
	$(BENCHMARK)/bin/python -m benchmarks.training $(ARGS)

pictures: $(STAMP) ## the pictures of README.md (with Chromium) and docs/augmentation.md, of drawn images
	$(BIN)/python docs/readme.py
	$(BIN)/python docs/augmentation.py

clean: ## remove the environments and what the tools left; runs in outputs/ stay
	rm -rf .venv $(BENCHMARK) build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
