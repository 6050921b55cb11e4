# Each command sets up what it needs, in .venv, from a machine with Python 3.11+, Node 20+, make and git.
# A stamp per step keeps the second call quick.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/.stamps
TORCH  ?= torch==2.13.0
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
LABEXT := $(VENV)/share/jupyter/labextensions/tinyviz-lab

WIDGET    := tinyviz/static/widget.js
LAB       := tinyviz/labextension/package.json
TS_CONFIG := extension/package.json extension/tsconfig.json
TS_SOURCE := $(shell find extension/src extension/style extension/scripts -type f 2>/dev/null)

.PHONY: help lab demo test bench check bundles clean
.DELETE_ON_ERROR:

help:
	@echo 'make lab      open JupyterLab on the first notebook'
	@echo 'make demo     train a network on handwritten digits, without a browser'
	@echo 'make test     run everything that is tested'
	@echo 'make bench    measure, beside the limits of the machine and the peers that are installed'
	@echo 'make clean    remove what the others built'

lab: $(STAMPS)/lab $(STAMPS)/system
	$(BIN)/jupyter-lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/00_whole_game.ipynb

demo: $(STAMPS)/lab $(STAMPS)/system
	@$(BIN)/tinyviz demo

test: check $(STAMPS)/peer
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# What needs no run: style, types on both sides, and the unit tests of the TypeScript.
check: $(STAMPS)/test $(STAMPS)/system-test
	$(BIN)/ruff check .
	$(BIN)/mypy
	npm --prefix extension run --silent check
	npm --prefix extension run --silent test

bench: $(STAMPS)/bench $(STAMPS)/system
	$(BIN)/python -m tests.benchmarks

bundles: $(WIDGET) $(LAB)

# --- set-up ---------------------------------------------------------------------------------------------------------

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"tinyviz needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]} (choose another with PYTHON=...)")'
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/node: extension/package.json extension/package-lock.json
	@node -e 'if (+process.versions.node.split(".")[0] < 20) { console.error("tinyviz needs Node 20 or newer; this is " + process.version); process.exit(1) }'
	npm --prefix extension ci --no-fund --no-audit --loglevel=error
	@mkdir -p $(STAMPS) && touch $@

$(WIDGET): $(TS_SOURCE) $(TS_CONFIG) | $(STAMPS)/venv $(STAMPS)/node
	npm --prefix extension run --silent build:widget

# The build writes the lock file anew; where it says the same, it gets its time back, or what hangs on it would be made again.
$(LAB): $(TS_SOURCE) $(TS_CONFIG) | $(STAMPS)/venv $(STAMPS)/node
	@cp -p extension/package-lock.json $(STAMPS)/package-lock.json
	npm --prefix extension run --silent build:lab
	@cmp -s $(STAMPS)/package-lock.json extension/package-lock.json && touch -r $(STAMPS)/package-lock.json extension/package-lock.json || true
	@touch $@

# install EXTRA: only when pyproject.toml is newer than the stamp. The link makes JupyterLab read the folder that the next
# build writes; it goes before pip comes, which would otherwise remove the files of the last install through it.
define install
@if [ ! -e $@ ] || [ pyproject.toml -nt $@ ]; then \
	rm -rf $(LABEXT); echo "$(PIP) install -e '.[$(1)]'"; $(PIP) install -e '.[$(1)]'; fi
@rm -rf $(LABEXT) && ln -s $(CURDIR)/tinyviz/labextension $(LABEXT)
@touch $@
endef

# The bundles come first: pip's build hook leaves a bundle that exists as it is, fresh or stale.
$(STAMPS)/lab: pyproject.toml $(WIDGET) $(LAB) extension/page_config.json | $(STAMPS)/venv
	$(call install,lab)
	@mkdir -p $(VENV)/etc/jupyter/labconfig && cp extension/page_config.json $(VENV)/etc/jupyter/labconfig/

$(STAMPS)/test: pyproject.toml $(STAMPS)/lab
	$(call install,test)

# The front end's property tests compare with PyTorch; without it they are skipped, and say so. TORCH= leaves it out.
$(STAMPS)/peer: $(STAMPS)/test
	@[ -z '$(TORCH)' ] || $(PIP) install '$(TORCH)' || echo 'no $(TORCH) here: the tests that compare with it are skipped'
	@touch $@

$(STAMPS)/bench: pyproject.toml $(STAMPS)/lab
	$(call install,bench)

# PoCL is an OpenCL driver for CPUs; without one, the opencl backend says that it is missing.
$(STAMPS)/system: scripts/debian-packages.sh | $(STAMPS)/venv
	@scripts/debian-packages.sh 'the opencl backend' pocl-opencl-icd
	@touch $@

$(STAMPS)/system-test: scripts/debian-packages.sh $(STAMPS)/system | $(STAMPS)/venv
	@scripts/debian-packages.sh 'the browser tests' chromium fonts-dejavu-core fonts-liberation
	@scripts/debian-packages.sh 'the tests of DOT export' graphviz
	@touch $@

clean:
	rm -rf $(VENV) extension/node_modules extension/lib tinyviz/static tinyviz/labextension dist build out \
	       .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
