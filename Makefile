# Two commands on a fresh machine: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
NATIVE := $(wildcard src/l4re/_native/*.c src/l4re/_native/*.h)
LEAF   := src/l4re/_native/leaf.abi3.so

.PHONY: demo test lint bench soak fuzz model native clean

$(VENV)/.ready: pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[dev]'
	touch $@

# Built aside and renamed into place: a running process keeps the file it mapped.
$(LEAF): $(NATIVE) setup.py | $(VENV)/.ready
	@mkdir -p build
	@dir=$$(mktemp -d build/leaf.XXXXXX) && \
	$(BIN)/python setup.py --quiet build_ext --build-temp $$dir/tmp --build-lib $$dir/lib && \
	mv $$dir/lib/l4re/_native/leaf.abi3.so $@ && rm -rf $$dir

native: $(LEAF)

demo: $(LEAF)
	@$(BIN)/l4re run examples/shared_ds/shared_ds.lua

test: $(LEAF)
	$(BIN)/python -m pytest -q -m 'not soak and not fuzz'

lint: $(LEAF)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict tests examples bench
	$(BIN)/lint-imports

bench: $(LEAF)
	$(BIN)/python -m bench

soak: $(LEAF)
	$(BIN)/python -m pytest -q -m soak

fuzz: $(LEAF)
	$(BIN)/python -m pytest -q -m fuzz

clean:
	rm -rf $(VENV) build dist *.egg-info src/*.egg-info $(LEAF) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
