# Run `make help` for what there is.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
PORT ?= 8501
WORKERS ?= 0

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

run: $(BIN)/.app images ## Open the app on the embedded demo (installs what is missing first)
	$(BIN)/python -m influence_core demo prepare movie-reviews
	$(BIN)/python -c "from influence_core.runs.client import ensure_engine; ensure_engine()"
	$(BIN)/python -m streamlit run app.py --server.port $(PORT) --server.fileWatcherType none $(STREAMLIT_FLAGS)

test: $(BIN)/.dev browser images ## All tests that fit CI
	$(if $(filter-out 0,$(WORKERS)),OMP_NUM_THREADS=1) $(BIN)/python -m pytest -m "not full" --durations 15 -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-full: $(BIN)/.full browser images ## These and the ones at real size (installs kronfluence)
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

demo-build: $(BIN)/.app images ## Train the demos' checkpoints and make everything shipped with them
	$(BIN)/python -m influence_core demo build movie-reviews
	$(BIN)/python -m influence_core demo build fashion-mnist

demo-check: $(BIN)/.app images ## Rebuild the demos' scores and compare them with the shipped ones
	$(BIN)/python -m influence_core demo check movie-reviews
	$(BIN)/python -m influence_core demo check fashion-mnist

.PHONY: browser images
browser: # Debian's Chromium for the browser tests, where it is missing and we may install it
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium; } \
	  || echo "chromium is missing: install it (apt-get install chromium), or the browser tests fail"

images: # Debian's Fashion-MNIST for its demo, where it is missing and we may install it
	@test -d /usr/share/datasets/fashion-mnist || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -y -qq dataset-fashion-mnist; } \
	  || echo "dataset-fashion-mnist is not installed: its demo fetches it (apt-get download, or the hub)"

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
