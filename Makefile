# On a fresh machine: `make demo`, `make test`. They need only Python 3.10 or later; MindSpore has
# wheels up to 3.12.
PYTHON ?= $(shell for v in python3.11 python3.12 python3.10 python3; do command -v $$v >/dev/null 2>&1 && $$v -c 'import sys; sys.exit(sys.version_info < (3,10))' 2>/dev/null && echo $$v && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Environment for the PyTorch backend, without MindSpore
TORCH_VENV := .venv-torch
TORCH_BIN := $(TORCH_VENV)/bin
TORCH_STAMP := $(TORCH_VENV)/.installed
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH ?= torch==2.13.0
DOCS_VENV := .venv-docs
DOCS_BIN := $(DOCS_VENV)/bin
DOCS_STAMP := $(DOCS_VENV)/.installed
SEED ?= 0
# Extras that the tests use, except `ncnn`, whose pnnx installs PyTorch
EXTRAS := dev,serve,supervision,video,onnx,openvino,albumentations

.PHONY: demo test test-torch test-all fuzz lint tables docs test-wheel clean

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mindyolo-ext demo

# Compiling graphs takes most of the time and uses one core, so two test files run in parallel. A
# worker that dies ends the run: pytest-xdist waits forever if the last one is replaced
test: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart=0

# Every array of every variant on PyTorch, which compiles nothing: minutes
test-torch: $(TORCH_STAMP)
	MINDYOLO_EXT_BACKEND=torch PATH="$(CURDIR)/$(TORCH_BIN):$$PATH" $(TORCH_BIN)/python -m pytest --all-cases -n 2 --dist loadfile --max-worker-restart=0

# Every array of every variant, compiled, one process at a time: hours
test-all: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/run_all.py

# Read 50,000 hostile files with every reader, and write the table in docs/security.md: minutes
fuzz: $(STAMP)
	nice -n 15 $(BIN)/python -m tests.fuzz --count 50000 --seed $(SEED) --page docs/security.md

# Generate the tables of README and docs from the families' records, and the pages of settings and
# commands
tables: $(STAMP)
	$(BIN)/python -m mindyolo_ext.models.tables README.md README_CN.md docs/*.md
	$(BIN)/mindyolo-ext recipe --markdown > docs/recipe.md
	$(BIN)/python -m mindyolo_ext.cli.reference > docs/cli.md
	$(BIN)/python docs/programs/packages.py
	$(BIN)/python benchmarks/summary.py docs/benchmarks.md docs/results.md
	$(BIN)/python benchmarks/truth_summary.py benchmarks/results docs/parity.md

# Build the site in ./site, in a separate environment; warnings and broken links are errors
docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(DOCS_BIN)/mkdocs build --strict --quiet

# Install the wheel into an empty environment and use it from another folder: minutes
test-wheel: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python tests/wheel.py dist

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.10 or later found; set one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	touch $@

# TORCH_INDEX has CPU builds; PyPI's builds for Linux include gigabytes of CUDA, and are used only if
# that index does not respond within seconds
$(TORCH_STAMP): pyproject.toml tests/torch_packages.py
	@test -n "$(PYTHON)" || { echo "No Python 3.10 or later found; set one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(TORCH_BIN)/python || $(PYTHON) -m venv $(TORCH_VENV)
	$(TORCH_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e . packaging
	$(TORCH_BIN)/python tests/torch_packages.py > $(TORCH_VENV)/packages.txt
	$(TORCH_BIN)/python -m pip install --quiet --disable-pip-version-check --timeout 10 --retries 0 --no-deps --index-url $(TORCH_INDEX) '$(TORCH)' \
		|| echo "$(TORCH_INDEX) does not respond; using the default index"
	$(TORCH_BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-conflicts '$(TORCH)' -r $(TORCH_VENV)/packages.txt
	touch $@

# The documentation is read from the sources; the project itself is not installed there
$(DOCS_STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.10 or later found; set one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(DOCS_BIN)/python || $(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_BIN)/python -m pip install --quiet --disable-pip-version-check 'mkdocs-material>=9.6,<10' 'mkdocstrings[python]>=0.29,<2'
	touch $@

clean:
	rm -rf $(VENV) $(TORCH_VENV) $(DOCS_VENV) site build dist *.egg-info
