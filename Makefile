# Everything a newcomer or a developer runs. `make demo` shows what Clipsieve does; `make test` proves it.
PYTHON ?= python3
BIN := .venv/bin
# Modules are compiled as they are imported, and kept so: all of them at once take a minute longer, and none of them ten
# seconds longer in each process that loads a model.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: demo test check format bench clean

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) -e '.[dev]'
	touch $@

demo: .venv/installed  ## Generate the sample data, curate it, compare with the planted truth
	rm -rf clipsieve-demo
	$(BIN)/clipsieve demo

test: .venv/installed-dev  ## Run all tests
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/installed-dev  ## Format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev  ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/installed-dev  ## Measure speed, as ratios within one run; results land in benchmarks/results
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv clipsieve-demo clipsieve-run dist build .mypy_cache .ruff_cache .pytest_cache
