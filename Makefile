# Every target does all its own set-up: `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.locked
# The package is importable without the network once installed; nothing here may wait for a hub.
export HF_HUB_DISABLE_TELEMETRY = 1
export WANDB_MODE ?= offline

.PHONY: setup demo test test-slow lint format lock clean

setup: $(STAMP)

# uv comes from the PATH, or from pip into a corner of its own when it is missing.
UV = { command -v uv >/dev/null 2>&1 || test -x .cache/uv/bin/uv || { $(PYTHON) -m venv .cache/uv && .cache/uv/bin/pip install -q uv; }; } && \
	PATH="$$PATH:$(CURDIR)/.cache/uv/bin"

$(STAMP): requirements.lock pyproject.toml
	@$(UV); export UV_LINK_MODE=hardlink; set -e; \
	test -x $(BIN)/python || uv venv -q --python $(PYTHON) $(VENV); \
	uv pip sync -q --python $(BIN)/python --require-hashes requirements.lock; \
	uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/omni-demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadscope -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:
	@$(UV); uv pip compile --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	  --all-extras pyproject.toml -o requirements.lock --custom-compile-command "make lock" -q

clean:
	rm -rf demo runs report.html report.json shards/*/ .pytest_cache .mypy_cache .ruff_cache
