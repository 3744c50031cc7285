# Two commands on a fresh machine: `make demo` and `make test`. Python 3.10 or later is all they need;
# MindSpore has wheels up to 3.12.
PYTHON ?= $(shell for v in python3.11 python3.12 python3.10 python3; do command -v $$v >/dev/null 2>&1 && $$v -c 'import sys; sys.exit(sys.version_info < (3,10))' 2>/dev/null && echo $$v && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Of the PyTorch backend alone, without MindSpore
TORCH_VENV := .venv-torch
TORCH_BIN := $(TORCH_VENV)/bin
TORCH_STAMP := $(TORCH_VENV)/.installed
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH ?= torch==2.13.0
DOCS_VENV := .venv-docs
DOCS_BIN := $(DOCS_VENV)/bin
DOCS_STAMP := $(DOCS_VENV)/.installed
SEED ?= 0
# What the tests use, pnnx of `ncnn` aside, which brings PyTorch along
EXTRAS := dev,serve,supervision,video,onnx,openvino,albumentations

.PHONY: demo test test-torch test-all fuzz lint tables docs test-wheel clean

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mindyolo-ext demo

# Compiling graphs takes one core and most of the time, so two files run side by side. A worker that
# dies ends the run: pytest-xdist waits for ever if the last one is replaced
test: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart=0

# Every array of every variant on PyTorch: nothing is compiled there, so it takes minutes
test-torch: $(TORCH_STAMP)
	MINDYOLO_EXT_BACKEND=torch PATH="$(CURDIR)/$(TORCH_BIN):$$PATH" $(TORCH_BIN)/python -m pytest --all-cases -n 2 --dist loadfile --max-worker-restart=0

# Every array of every variant, all of it compiled: a process after the other, hours
test-all: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/run_all.py

# 50,000 hostile files through every reader; the table goes into docs/security.md. Minutes
fuzz: $(STAMP)
	nice -n 15 $(BIN)/python -m tests.fuzz --count 50000 --seed $(SEED) --page docs/security.md

# Tables of README and docs that repeat the families' records, and the page of all settings
tables: $(STAMP)
	$(BIN)/python -m mindyolo_ext.models.tables README.md README_CN.md docs/*.md
	$(BIN)/mindyolo-ext recipe --markdown > docs/recipe.md
	$(BIN)/python -m mindyolo_ext.cli.reference > docs/cli.md
	$(BIN)/python docs/programs/packages.py

# The site in ./site, in an environment of its own; a warning or a broken link is an error
docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(DOCS_BIN)/mkdocs build --strict --quiet

# Whether the wheel is enough: installed into an empty environment, used from another folder. Minutes
test-wheel: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python tests/wheel.py dist

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.10 or later found; name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	touch $@

# TORCH_INDEX has builds for CPUs; PyPI's for Linux bring gigabytes of CUDA along, and come only
# where that index does not answer within seconds
$(TORCH_STAMP): pyproject.toml tests/torch_packages.py
	@test -n "$(PYTHON)" || { echo "No Python 3.10 or later found; name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(TORCH_BIN)/python || $(PYTHON) -m venv $(TORCH_VENV)
	$(TORCH_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e . packaging
	$(TORCH_BIN)/python tests/torch_packages.py > $(TORCH_VENV)/packages.txt
	$(TORCH_BIN)/python -m pip install --quiet --disable-pip-version-check --timeout 10 --retries 0 --no-deps --index-url $(TORCH_INDEX) '$(TORCH)' \
		|| echo "$(TORCH_INDEX) does not answer; the usual index has to do"
	$(TORCH_BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-conflicts '$(TORCH)' -r $(TORCH_VENV)/packages.txt
	touch $@

# Documentation is read from the sources: the project itself is not installed there
$(DOCS_STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.10 or later found; name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(DOCS_BIN)/python || $(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_BIN)/python -m pip install --quiet --disable-pip-version-check 'mkdocs-material>=9.6,<10' 'mkdocstrings[python]>=0.29,<2'
	touch $@

clean:
	rm -rf $(VENV) $(TORCH_VENV) $(DOCS_VENV) site build dist *.egg-info
