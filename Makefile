# Run `make help` for what there is.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
PORT ?= 8501

.DEFAULT_GOAL := help
.PHONY: help run test test-full lint bench demo-build demo-check clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(BIN)/.app: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(BIN)/.dev: requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $(BIN)/.app $@

run: $(BIN)/.app ## Open the app on the embedded demo (installs what is missing first)
	$(BIN)/python -m influence_core demo prepare movie-reviews
	$(BIN)/python -c "from influence_core.runs.client import ensure_engine; ensure_engine()"
	$(BIN)/python -m streamlit run app.py --server.port $(PORT) --server.fileWatcherType none $(STREAMLIT_FLAGS)

test: $(BIN)/.dev browser ## All tests that fit CI
	$(BIN)/python -m pytest -m "not full"

test-full: $(BIN)/.full browser ## These and the ones at real size (installs kronfluence)
	$(BIN)/python -m pytest

lint: $(BIN)/.dev ## Style, types, and which room leans on which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(BIN)/.full: $(BIN)/.dev requirements-ekfac.txt
	$(BIN)/python -m pip install --quiet -r requirements-ekfac.txt
	touch $@

$(BIN)/.bench: $(BIN)/.full requirements-bench.txt
	$(BIN)/python -m pip install --quiet -r requirements-bench.txt
	touch $@

bench: $(BIN)/.bench ## Ratios, both sides measured in one run (installs captum and kronfluence)
	$(BIN)/python -m benchmarks

demo-build: $(BIN)/.app ## Train the demo's checkpoint and make everything shipped with it
	$(BIN)/python -m influence_core demo build movie-reviews

demo-check: $(BIN)/.app ## Rebuild the demo's scores and compare them with the shipped ones
	$(BIN)/python -m influence_core demo check movie-reviews

.PHONY: browser
browser: # Debian's Chromium for the browser tests, where it is missing and we may install it
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium; } \
	  || echo "chromium is missing: install it (apt-get install chromium), or the browser tests fail"

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
