# make demo, make test and the rest need Python 3.11 or later (with venv), gcc, make and git; all else goes into $(VENV).
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(shell find qvec -name '*.[ch]' ! -name _kernels.c -o -name '*.pyx' -o -name '*.pxi' -o -name '*.pxd')
C_FILES := $(wildcard qvec/kernels/*/*.[ch]) tests/emulated/kernels.c
PIP := PIP_NO_COMPILE=1 $(BIN)/python -m pip --disable-pip-version-check --quiet
BUILD_REQUIREMENTS := $(BIN)/python -c 'import tomllib; \
    print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")'
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n auto --dist worksteal

.PHONY: demo docs test test-all nightly lint format check examples frameworks reliability simd clang dist wheel release sanitize memcheck bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.built
	$(BIN)/qvec demo

# Exit code 5 of pytest means that no test was selected: an error for the parallel tests, but not for those marked `alone`.
ALLOW_NONE := || [ $$? -eq 5 ]

# For each change: two to three minutes. Tests marked `alone` follow those that run in parallel.
test: $(VENV)/.built
	$(PYTEST) $(PARALLEL) -m 'not slow and not nightly and not alone'
	$(PYTEST) -m 'alone and not slow and not nightly' $(ALLOW_NONE)

# The long combinations, statistics, type checkers and reliability tests as well.
test-all: test $(VENV)/.typing
	$(PYTEST) $(PARALLEL) -m 'slow and not nightly and not alone'
	$(PYTEST) -m 'alone and slow and not nightly' $(ALLOW_NONE)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "qvec: no python3 on PATH; install Python 3.11 or later" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	    "qvec: Python 3.11 or later is needed, $(PYTHON) is %d.%d; set PYTHON=" % v[:2])'
	@for tool in gcc git; do command -v $$tool >/dev/null || { echo "qvec: $$tool is needed" >&2; exit 1; }; done
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "qvec: $(PYTHON) has no venv module" >&2; exit 1; }

$(VENV)/.built: $(VENV)/bin/python $(SOURCES)
	@echo "Installing qvec and what it needs into $(VENV), and compiling its kernels (a minute or two)"
	@$(BUILD_REQUIREMENTS) | $(PIP) install --requirement /dev/stdin
	@$(PIP) install --no-build-isolation --editable '.[test,cli,hdf5]' --editable ./demo_data
	@touch $@

$(VENV)/.typing: $(VENV)/.built
	@$(PIP) install --editable '.[typing]'
	@touch $@

$(VENV)/.docs: $(VENV)/.built
	@$(PIP) install --editable '.[docs]'
	@touch $@

$(VENV)/.dev: $(VENV)/.built
	@$(PIP) install --editable '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.built
	@$(PIP) install --editable '.[bench]'
	@touch $@

# The documentation site, in build/site. Warnings and dead links are errors.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)
	$(BIN)/codespell qvec tests docs benchmarks examples *.md *.py Makefile
	$(BIN)/python tests/check_phrases.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

check: lint test

# What takes too long for each push: all tests, each SIMD level, emulated kernels, frameworks, a build by clang, the built
# wheel, and the reliability suite at its nightly size, which includes the sanitizers. The frameworks are installed first,
# so that no test of `test-all` is skipped for want of a package.
nightly: lint docs examples $(VENV)/.frameworks test-all simd frameworks clang wheel reliability
	QVEC_SCALE=nightly $(PYTEST) -m nightly --timeout 3600

# The notebooks, executed.
examples: $(VENV)/.examples
	$(BIN)/python examples/run.py

$(VENV)/.examples: $(VENV)/.built
	@$(PIP) install --editable '.[examples]'
	@touch $@

# The tests of integrations with PyTorch, Ray and the retrieval frameworks.
# Needs some gigabytes if PyTorch comes with CUDA: TORCH names the requirement that pip is given.
TORCH ?= torch>=2.2
frameworks: $(VENV)/.frameworks
	$(PYTEST) $(PARALLEL) -m 'not nightly' tests/frameworks

$(VENV)/.frameworks: $(VENV)/.built
	@$(PIP) install '$(TORCH)' --editable '.[frameworks]'
	@touch $@

reliability: $(VENV)/.dev
	$(BIN)/python benchmarks/bench_reliability.py --scale nightly

# The tests marked `simd`, once for each SIMD level of the machine.
simd: $(VENV)/.built
	for level in scalar avx2 avx512; do QVEC_SIMD=$$level $(PYTEST) $(PARALLEL) -m 'simd and not nightly' || exit 1; done

# The tests of `make test` with kernels that clang has compiled, from a copy: the checkout keeps its own build.
clang: $(VENV)/.dev
	@command -v clang >/dev/null || { echo "qvec: clang is needed" >&2; exit 1; }
	rm -rf build/clang && mkdir -p build/clang
	git ls-files -z | xargs -0 cp --parents -t build/clang
	cd build/clang && CC=clang $(abspath $(BIN))/python setup.py --quiet build_ext --inplace
	cd build/clang && $(abspath $(BIN))/python -m pytest $(PARALLEL) -m 'not slow and not nightly and not alone'
	cd build/clang && $(abspath $(BIN))/python -m pytest -m 'alone and not slow and not nightly' $(ALLOW_NONE)

# The wheel as users install it, for Linux with the tag that auditwheel finds (manylinux), and the source archive.
WHEEL_TESTS ?= -m 'not slow and not nightly and not alone'
dist: $(VENV)/.dev
	rm -rf build/wheel dist && mkdir -p build/wheel
	$(BIN)/python -m build --outdir build/wheel/built
	mkdir dist && cp build/wheel/built/*.tar.gz dist/
	if [ "$$(uname)" = Linux ]; then PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --strip --wheel-dir dist build/wheel/built/*.whl; \
	    else cp build/wheel/built/*.whl dist/; fi

# The suite against that wheel, away from the checkout, where no compiler is found.
wheel: dist
	$(BIN)/python -m venv build/wheel/venv
	wheel=$$(echo dist/qvec-*.whl) && build/wheel/venv/bin/python -m pip install --quiet "$$wheel[test,cli,hdf5]" ./demo_data
	$(BIN)/python tests/check_wheel.py dist build/wheel/venv
	mkdir build/wheel/tools && find $$(echo $$PATH | tr : ' ') -maxdepth 1 \( -type f -o -type l \) ! -name '*gcc*' ! -name cc ! -name '*ccache*' ! -name 'c[89]9*' ! -name '*clang*' \
	    ! -name '*g++*' ! -name 'c++*' ! -name '*pyenv*' -exec ln -sf -t build/wheel/tools {} + 2>/dev/null || true
	cp -r tests docs $(wildcard examples) README.md Makefile pyproject.toml mkdocs.yml build/wheel/
	cd build/wheel && ! PATH="$$PWD/tools" command -v gcc && \
	    PATH="$$PWD/venv/bin:$$PWD/tools" venv/bin/python -P -m pytest $(PARALLEL) $(WHEEL_TESTS)

# Everything that a person needs who publishes VERSION: checks, then archives in dist/. Nothing is uploaded.
release: $(VENV)/.dev
	$(BIN)/python tests/check_release.py "$(VERSION)"
	$(MAKE) wheel
	@echo "dist/ is ready. To publish $(VERSION): git tag v$(VERSION) && git push origin v$(VERSION), download the wheels that"
	@echo "the workflow 'wheels' builds into dist/, then: twine check dist/* && twine upload dist/*"

# The suite, or TESTS of it, with AddressSanitizer and UBSan in the kernels, from a copy: the checkout keeps its own build.
sanitize: $(VENV)/.dev
	rm -rf build/sanitize && mkdir -p build/sanitize
	cp -r qvec tests setup.py pyproject.toml README.md LICENSE Makefile build/sanitize/
	rm -f build/sanitize/qvec/_kernels*.so build/sanitize/qvec/_kernels.c
	cd build/sanitize && QVEC_SANITIZE=1 $(abspath $(BIN))/python setup.py --quiet build_ext --inplace
	cd build/sanitize && \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 $(abspath $(BIN))/python -m pytest -m "not nightly" --timeout 1800 --junitxml=report.xml $(TESTS)

# What reads memory that nothing has written: needs valgrind.
memcheck: $(VENV)/.built
	mkdir -p build && PYTHONMALLOC=malloc OPENBLAS_NUM_THREADS=1 \
	    valgrind --error-limit=no --log-file=build/memcheck.log $(BIN)/python tests/memcheck.py
	! grep -B 12 _kernels build/memcheck.log

bench: $(VENV)/.bench
	for script in $(filter-out benchmarks/bench_growth.py benchmarks/bench_limited.py benchmarks/bench_reliability.py,$(wildcard benchmarks/bench_*.py)); do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf build dist *.egg-info qvec/_kernels.c qvec/_kernels*.so $(VENV)
