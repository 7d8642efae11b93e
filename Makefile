# Two commands on a fresh machine: `make demo` and `make test`. Both set up what they need:
# Python 3.11 or newer, a C compiler and its package index are all they ask for.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
VENV   := .venv
BIN    := $(VENV)/bin
LEAF   := src/l4re/_native/leaf.abi3.so
NATIVE := $(wildcard src/l4re/_native/*.c src/l4re/_native/*.h)
PYTEST  = $(BIN)/python -m pytest -q
# Tests are independent of each other: they run beside each other.
BESIDE  = -n auto --maxprocesses 4 --dist worksteal
# A tool that succeeds says nothing; one that fails says everything it said.
QUIET   = mkdir -p build; dir=$$(mktemp -d build/make.XXXXXX) || exit 1; trap 'rm -rf "$$dir"' EXIT; \
	quiet() { "$$@" >>"$$dir/log" 2>&1 || { cat "$$dir/log" >&2; exit 1; }; }

.PHONY: demo test processes lint bench soak fuzz model debug sanitize docs native clean help
.DELETE_ON_ERROR:

help:
	@echo 'make demo   the shared dataspace example: two programs, one Lua script'
	@echo 'make test   all tests but the long ones     make lint   ruff, mypy, import-linter'
	@echo 'make bench  l4re bench: us beside peers     make docs   docs/reference from the docstrings'
	@echo 'make soak   long tests                      make fuzz   random bytes in every decoder'
	@echo 'make model  the sleep/wake protocol, searched exhaustively (needs spin)'
	@echo 'make sanitize  core tests, the C leaf under ASan and UBSan'
	@echo 'make clean  remove everything made here     .ci/run     what a change has to pass'

# Runs again when the project's description changes.
$(VENV)/.ready: pyproject.toml setup.py
	@test -n "$(PYTHON)" || { echo 'pyl4re needs Python 3.11 or newer: none found (make PYTHON=/path/to/python3)' >&2; exit 1; }
	@command -v cc >/dev/null || command -v gcc >/dev/null || { echo 'pyl4re needs a C compiler: no cc or gcc found' >&2; exit 1; }
	@echo 'Setting up $(VENV) ...' >&2
	@$(QUIET); \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || quiet $(PYTHON) -m venv --clear $(VENV); \
	quiet $(BIN)/python -m pip install --disable-pip-version-check --upgrade pip setuptools; \
	quiet $(BIN)/python -m pip install --disable-pip-version-check --no-build-isolation --editable '.[dev]'
	@touch $@

# Built aside and renamed into place: a running process keeps the file it mapped.
$(LEAF): $(NATIVE) setup.py | $(VENV)/.ready
	@$(QUIET); \
	quiet $(BIN)/python setup.py --quiet build_ext --build-temp $$dir/tmp --build-lib $$dir/lib; \
	grep -F 'warning:' "$$dir/log" >&2; \
	mv $$dir/lib/l4re/_native/leaf.abi3.so $@

native: $(LEAF)

demo: $(LEAF)
	@$(BIN)/l4re run examples/shared_ds/shared_ds.lua

test: $(LEAF) debug
	$(PYTEST) $(BESIDE) -m 'not soak and not fuzz'

processes: $(LEAF) debug
	$(PYTEST) $(BESIDE) -m 'processes and not soak and not fuzz'

lint: $(LEAF)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy --no-error-summary
	$(BIN)/mypy --no-error-summary $(wildcard tests examples docs model)
	@$(QUIET); echo lint-imports; quiet $(BIN)/lint-imports --no-logo

docs: $(LEAF)
	$(BIN)/python docs/generate.py

bench: $(LEAF)
	$(BIN)/l4re bench

soak: $(LEAF) debug
	$(PYTEST) -s -m soak

# Every decoder: guided by coverage for FUZZ_SECONDS in all (build/fuzz/fuzz.log says what came of it), if atheris has
# a wheel for this Python; then by hypothesis.
FUZZ_SECONDS ?= 300
fuzz: $(LEAF)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary=:all: 'atheris>=2.3' || true
	$(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS)
	$(PYTEST) -m fuzz

# The sleep/wake protocol: orders of memory accesses, then an exhaustive search that says what it needs installed.
model: | $(VENV)/.ready
	@$(BIN)/python model/litmus.py
	@$(BIN)/python model/run.py

# The package once more with a leaf that delays or stops at marked points of the protocol; tests/soak and tests/death
# reach it by PYTHONPATH.
DEBUG   = build/debug
PACKAGE = $(shell find src/l4re -type f ! -name '*.pyc' ! -name '*.so')
debug: $(DEBUG)/.ready
$(DEBUG)/.ready: $(PACKAGE) Makefile | $(LEAF)
	@rm -rf $(DEBUG) && mkdir -p $(DEBUG) && cp -a src/l4re $(DEBUG)/
	@$(CC) -shared -fPIC -std=c11 -O2 -g -fvisibility=hidden -Wall -Wextra -DL4RE_DEBUG -D_GNU_SOURCE=1 \
		-DPy_LIMITED_API=0x030B0000 -I$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))') \
		$(filter %.c,$(NATIVE)) -o $(DEBUG)/l4re/_native/leaf.abi3.so
	@touch $@

# The leaf once more under AddressSanitizer and UndefinedBehaviorSanitizer, on a copy of the package.
SANITIZED = build/sanitize
sanitize: $(LEAF)
	@rm -rf $(SANITIZED) && mkdir -p $(SANITIZED) && cp -r src/l4re $(SANITIZED)/
	$(CC) -shared -fPIC -std=c11 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all \
		-D_GNU_SOURCE=1 -DPy_LIMITED_API=0x030B0000 -I$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))') \
		$(filter %.c,$(NATIVE)) -o $(SANITIZED)/l4re/_native/leaf.abi3.so
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=16 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
		PYTHONPATH=$(CURDIR)/$(SANITIZED) $(PYTEST) -p no:cacheprovider -m 'not soak and not fuzz' \
		tests/core tests/hostile tests/dataspace tests/rm

clean:
	rm -rf $(VENV) build dist *.egg-info src/*.egg-info $(LEAF)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
