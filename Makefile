# make demo, make test and the rest need Python 3.11 or later (with venv), gcc, make and git; all else goes into $(VENV).
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard qvec/*.pyx qvec/kernels/*/*)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test lint format check nightly torch reliability simd wheel sanitize memcheck bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.built
	$(BIN)/qvec demo

test: $(VENV)/.built
	$(BIN)/python -m pytest

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "qvec: no python3 on PATH; install Python 3.11 or later" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	    "qvec: Python 3.11 or later is needed, $(PYTHON) is %d.%d; set PYTHON=" % v[:2])'
	@for tool in gcc git; do command -v $$tool >/dev/null || { echo "qvec: $$tool is needed" >&2; exit 1; }; done
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "qvec: $(PYTHON) has no venv module" >&2; exit 1; }

$(VENV)/.built: $(VENV)/bin/python $(SOURCES)
	@echo "Installing qvec and what it needs into $(VENV), and compiling its kernels (a minute or two)"
	@$(PIP) install --editable '.[test,cli,hdf5]'
	@touch $@

$(VENV)/.dev: $(VENV)/.built
	@$(PIP) install --editable '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.built
	@$(PIP) install --editable '.[bench]'
	@touch $@

# Needs some gigabytes where PyTorch comes with CUDA: TORCH names the requirement that pip is given.
TORCH ?= torch>=2.2
$(VENV)/.torch: $(VENV)/.built
	@$(PIP) install '$(TORCH)'
	@touch $@

torch: $(VENV)/.torch
	$(BIN)/python -m pytest tests/test_torch.py tests/test_qat.py tests/test_adapters.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test

# Everything that takes too long for each push: the long tests, each SIMD level, the built wheel, and the reliability
# suite at its nightly size, the sanitizers among it.
nightly: lint simd wheel reliability
	$(BIN)/python -m pytest -m 'nightly or not nightly' --timeout 3600

reliability: $(VENV)/.dev
	$(BIN)/python benchmarks/bench_reliability.py --scale nightly

simd: $(VENV)/.built
	for level in scalar avx2 avx512; do QVEC_SIMD=$$level $(BIN)/python -m pytest || exit 1; done

# The suite against the wheel as users install it, away from the checkout.
wheel: $(VENV)/.dev
	rm -rf build/wheel dist && mkdir -p build/wheel
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m venv build/wheel/venv
	wheel=$$(echo dist/qvec-*.whl) && build/wheel/venv/bin/pip install --quiet "$$wheel[test,cli,hdf5]"
	cp -r tests README.md Makefile pyproject.toml build/wheel/
	cd build/wheel && venv/bin/pytest

# The suite, or TESTS of it, with AddressSanitizer and UBSan in the kernels, from a copy: the checkout keeps its own build.
sanitize: $(VENV)/.dev
	rm -rf build/sanitize && mkdir -p build/sanitize
	cp -r qvec tests setup.py pyproject.toml README.md LICENSE Makefile build/sanitize/
	rm -f build/sanitize/qvec/_kernels*.so build/sanitize/qvec/_kernels.c
	cd build/sanitize && QVEC_SANITIZE=1 $(abspath $(BIN))/python setup.py --quiet build_ext --inplace
	cd build/sanitize && \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 $(abspath $(BIN))/python -m pytest --timeout 1800 --junitxml=report.xml $(TESTS)

# What reads memory that nothing has written: needs valgrind.
memcheck: $(VENV)/.built
	mkdir -p build && PYTHONMALLOC=malloc OPENBLAS_NUM_THREADS=1 \
	    valgrind --error-limit=no --log-file=build/memcheck.log $(BIN)/python tests/memcheck.py
	! grep -B 12 _kernels build/memcheck.log

bench: $(VENV)/.bench
	for script in $(filter-out benchmarks/bench_growth.py benchmarks/bench_reliability.py,$(wildcard benchmarks/bench_*.py)); do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf build dist *.egg-info qvec/_kernels.c qvec/_kernels*.so $(VENV)
