# Needs only Python 3.11: `make demo` and `make test` create .venv if needed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-runtimes test-device test-page check format bench soak clean

demo: .venv/installed
	$(BIN)/tinyscene demo

# One thread a process: processes with more threads than cores take several times as long.
test: .venv/tested
	$(BIN)/ruff format --check src tests examples benchmarks results
	$(BIN)/ruff check src tests examples benchmarks results
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# LiteRT and ExecuTorch files on their own runtimes, about 2 GB more than for `make test`.
test-runtimes: .venv/runtimes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/deployment

# C files on emulated Cortex-M boards; a compiler and an emulator come from Debian, 500 MB.
test-device: .venv/tested
	command -v arm-none-eabi-gcc && command -v qemu-system-arm || apt-get install -y gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/deployment/test_boards.py tests/deployment/test_c_files.py

# The page in headless Chromium; compiler and browser come from Debian, 900 MB.
test-page: .venv/tested
	command -v clang && command -v wasm-ld && command -v chromium || apt-get install -y clang lld chromium
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt playwright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/deployment/test_page.py

# The same, for development.
check: test

format: .venv/tested
	$(BIN)/ruff format src tests examples benchmarks results
	$(BIN)/ruff check --fix src tests examples benchmarks results

# Speed beside peers, as ratios in one run.
bench: .venv/tested
	$(BIN)/python benchmarks/frontends.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/listening.py
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/busy.py
	$(BIN)/python benchmarks/cache.py
	$(BIN)/python benchmarks/int8.py
	$(BIN)/python benchmarks/allocator.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python results/collect.py

# The long versions of the tests: more kills, more seeds, whole matrices.
soak: .venv/tested
	TINYSCENE_SOAK=1 $(BIN)/python -m pytest -n 2 tests/compression tests/deployment tests/models tests/submission tests/systems tests/training tests/test_users_networks.py

# torch first: as a dependency, pip would install a build with CUDA.
.venv/installed: pyproject.toml constraints.txt
	@echo "Making .venv: about 1.5 GB and three minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/tested: .venv/installed
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@

.venv/runtimes: .venv/tested
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[litert,executorch,listen]"
	touch $@

clean:
	rm -rf .venv build dist runs src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
