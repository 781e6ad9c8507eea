# `make demo` and `make test` are all that a newcomer needs; both set up .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The type checker reads the layout that is installed: bittern/index and so on, as links.
LAYOUT := $(VENV)/layout
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test lint types docs unit browser matrix soak bench bench-search bench-jobs protos clean help

help:
	@echo "make demo    set up, build the sample archive, search it three times"
	@echo "make test    set up, then lint, types and tests; installs chromium where there is none"
	@echo "make docs    build the documentation in site/ and check its links"
	@echo "make matrix  all tests with three CPU capabilities and two numbers of threads; TESTS=tests/hashing for some"
	@echo "make soak    property tests on random examples, 200 kills of a writer, 200 damaged or hostile archives;"
	@echo "             ROUNDS=2000 CASES=2000 SEED=7 for more, or the same ones again"
	@echo "make bench   speed, measured here"
	@echo "make bench-search    search engines against the machine and their peers, about a quarter of an hour"
	@echo "make bench-jobs      jobs: pipeline, archives, commits, restart, Ray; about a quarter of an hour"
	@echo "make protos  lint the wire contract and generate its stubs again"

demo: $(INSTALLED)
	@$(BIN)/bittern demo --archive demo-archive

test: lint types docs unit

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd protos && ../$(BIN)/buf lint

types: $(INSTALLED)
	@rm -rf $(LAYOUT) && mkdir -p $(LAYOUT)/bittern
	@ln -s $(CURDIR)/bittern/* $(CURDIR)/encoders $(CURDIR)/hashing $(CURDIR)/index \
	  $(CURDIR)/service $(CURDIR)/benchmarks $(LAYOUT)/bittern
	@ln -s $(CURDIR)/tests $(CURDIR)/pyproject.toml $(LAYOUT)
	cd $(LAYOUT) && ../bin/mypy --cache-dir $(CURDIR)/.mypy_cache bittern tests

# Builds site/, and fails on a broken link. The plugin for the command line calls typer.
docs: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mkdocs build --strict

unit: $(INSTALLED) browser
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n auto --dist loadfile

# Tests look at the page of a benchmark run in a real browser. Where there is none, root gets
# Debian's, and everybody else is told what to install.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || \
	    { echo "The tests need chromium. On Debian, as root: apt-get install chromium"; exit 1; }; \
	  echo "Installing chromium (the tests look at pages with it) ..."; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq && \
	  apt-get install -qq -y --no-install-recommends chromium >/dev/null; }

# Before a release: sums of floats differ between instruction sets and numbers of threads.
matrix: $(INSTALLED)
	@for capability in default avx2 native; do for threads in 1 2; do \
	  echo "capability $$capability, threads $$threads"; \
	  if [ $$capability = native ]; then unset ATEN_CPU_CAPABILITY; \
	  else export ATEN_CPU_CAPABILITY=$$capability; fi; \
	  OMP_NUM_THREADS=$$threads OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n auto --dist loadfile \
	    --durations=0 $(TESTS) || exit 1; \
	done; done

ROUNDS ?= 200
CASES ?= 200
soak: $(INSTALLED)
	HYPOTHESIS_PROFILE=random $(BIN)/python -m pytest -m hypothesis $(if $(SEED),--hypothesis-seed $(SEED))
	$(BIN)/python -m tests.survival.soak --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.damage.soak $(CASES) $(SEED)

bench: $(INSTALLED)
	$(BIN)/python -m bittern.benchmarks

# Threads of OpenMP that wait would otherwise spin, and slow down whoever has the next turn.
bench-search: $(INSTALLED)
	COLUMNS=110 OMP_WAIT_POLICY=passive $(BIN)/python -m bittern.benchmarks search \
	  --json benchmarks/results/search.json | tee benchmarks/results/search.txt

bench-jobs: $(INSTALLED)
	COLUMNS=110 OMP_WAIT_POLICY=passive $(BIN)/python -m bittern.benchmarks jobs \
	  --json benchmarks/results/jobs.json | tee benchmarks/results/jobs.txt

protos: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh protos/generate.sh

# constraints.txt holds the versions that were tested together; pyproject.toml the ranges.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Bittern needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "venv is missing. On Debian: apt-get install python3-venv"; exit 1; }
	@echo "Installing into $(VENV) (about 8 GB with PyTorch's CUDA libraries; some minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo-archive build site *.egg-info .mypy_cache .ruff_cache .pytest_cache
