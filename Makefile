# Every target makes what it needs: on a fresh machine with python3 >= 3.11, `make demo` and `make test` are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The second stamp comes on top of the first, so that `make demo` does not wait for test tools.
BASE := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
DOCS := $(VENV)/.installed-docs
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
ARITHMETIC ?=
COVERAGE ?= --cov --cov-report=term:skip-covered
TESTS ?=
# Where a shell forbids it, each of the many processes would compile all that it imports: over a second each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test accept chaos lint format bench docs clean-venv

demo: $(BASE)
	$(BIN)/lvd demo

# `make test ARITHMETIC=fp32 TESTS=tests/curation`: what products are made in, and which tests (see CONTRIBUTING.md).
# All of them measure what they cover, against the floor in pyproject.toml; `COVERAGE=` spares the third more of
# processor time that this takes. Some of them have no floor to reach.
test: $(DEV)
	LVD_TEST_ARITHMETIC=$(ARITHMETIC) $(BIN)/python -m pytest --numprocesses auto --dist loadfile \
	    $(or $(TESTS),$(COVERAGE))

accept: $(DEV)
	$(BIN)/python -m pytest -m accept --timeout 3600 -v

# Every fault of the table, injected: needs root and strace (apt-get install strace).
chaos: $(DEV)
	$(BIN)/python -m tests.chaos

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV)
	@for bench in tests/benchmarks/bench_*.py; do $(BIN)/python $$bench || exit 1; done

# The pages of docs/ as a site, in site/. A link that leads nowhere is an error; nothing is asked of the network.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

$(BASE): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lvd needs Python 3.11 or later, and this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[cpu,train]'
	touch $@

$(DEV): $(BASE)
	$(PIP) -e '.[cpu,train,s3,dev]'
	touch $@

$(DOCS): $(BASE)
	$(PIP) -e '.[cpu,docs]'
	touch $@

clean-venv:
	rm -rf $(VENV)
