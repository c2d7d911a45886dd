# Two commands: `make demo` runs the main job on a real model, `make test` runs the tests. Each sets up what it needs.
# `make test` needs Chromium for the tests that open the report (Debian: apt-get install chromium).

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# llama.cpp without its tools: about nine minutes of processor time.
LLAMA := -DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_OPENSSL=OFF

.PHONY: demo test test-gguf quick check clean

demo: .venv/ready
	$(BIN)/blinkscope locate 'Should I get a cat or a dog for a small flat? Answer in one sentence.' \
	    --feature 'regex:\b(cat|dog)s?\b' --max-new-tokens 50 --seed 4 --error 0.08 --continuations 600 \
	    -o demo/run.db --report demo/report.html
	@echo "Open demo/report.html in a browser."

test: .venv/ready-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test-gguf: .venv/ready-gguf
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/engines/test_gguf.py tests/contract/test_engines.py -k gguf

quick: .venv/ready-dev
	$(BIN)/python -m pytest -m "not slow and not model and not browser"

check: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --editable '.[hf]'
	$(BIN)/blinkscope models --install smollm2
	mkdir -p demo
	touch $@

.venv/ready-dev: .venv/ready
	$(PIP) --editable '.[dev]'
	touch $@

.venv/ready-gguf: .venv/ready-dev
	CMAKE_ARGS="$(LLAMA)" $(PIP) --editable '.[gguf]'
	touch $@

clean:
	rm -rf .venv demo build dist
