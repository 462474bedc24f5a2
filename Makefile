# Everything runs from here with nothing but Python 3.11 or later and the package registries.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
# Fast tests side by side, the tests of one file in one process.
WORKERS ?= logical

.DEFAULT_GOAL := help
.PHONY: help install demo up down test test-live test-live-one test-live-two test-live-three test-soak test-postgres-15 bench check docs estate-up estate-down browser pictures

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Reinstate needs Python 3.11 or later; run: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@started=$$(date +%s); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . && \
	echo "environment installed in $$(( $$(date +%s) - started )) s"
	@touch $@

install: $(STAMP) ## Make .venv with everything pinned by requirements.lock

demo: $(STAMP) ## Wreck a real app, bring it back, prove it (DEMO_JSON=path also writes the numbers)
	@$(BIN)/reinstate demo

up: $(STAMP) ## Run everything until Ctrl-C: the order desk, Prefect, watcher, pages (ARGS="--catalog DIR" for your own app)
	@exec $(BIN)/reinstate up $(ARGS)

down: $(STAMP) ## Stop what `make up` runs, from another terminal
	@$(BIN)/reinstate down

test: $(STAMP) ## Fast tests, then the one live end-to-end run; ARGS="..." goes to pytest instead
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile
	$(BIN)/python -m pytest -m loop
else
	$(BIN)/python -m pytest $(ARGS)
endif

# Live tests wait more than they compute: three lanes side by side, each with estates of its own. The first is what a
# person starts and sees, the second the logic path on three platforms, the third everything else. The lane that ends
# first goes on with the long proofs of the data engine, the next with the data engine on PostgreSQL 15.
LANE_ONE := tests/browser $(addprefix tests/live/test_,up.py up_kills.py approval.py deploy.py wheel.py)
LANE_TWO := tests/contract $(addprefix tests/live/test_,directus_story.py node_red_story.py n8n_story.py logic_kills.py n8n_events.py workflow_versions.py discovery.py discovery_on_platforms.py)

test-live: browser ## Controls, kills and faults on live parts; long proofs; PostgreSQL 15
ifeq ($(strip $(ARGS)),)
	@$(MAKE) --no-print-directory -j3 --output-sync=line test-live-one test-live-two test-live-three test-soak test-postgres-15
else
	$(BIN)/python -m pytest -m "live and not loop" $(ARGS)
endif

test-live-one:
	$(BIN)/python -m pytest -vv -m "live and not loop" --timeout=1800 --durations=15 $(LANE_ONE)

test-live-two:
	$(BIN)/python -m pytest -vv -m "live and not loop" --timeout=1800 --durations=15 $(LANE_TWO)

test-live-three:
	$(BIN)/python -m pytest -vv -m "live and not loop" --timeout=1800 --durations=15 $(addprefix --ignore=,$(LANE_ONE) $(LANE_TWO))

test-soak: $(STAMP) ## The data engine against its model, 20,000 steps
	$(BIN)/python -m pytest -vv -m soak --durations=5

test-postgres-15: $(STAMP) ## Everything that needs only PostgreSQL, on PostgreSQL 15
	REINSTATE_TEST_POSTGRES=15 $(BIN)/python -m pytest -m "not live and not soak" --durations=5 tests/snapshots tests/stateful tests/crash

check: $(STAMP) ## Format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## Measure what is promised in numbers; writes benchmarks/results.json (SCALE=200k ARGS="--only capture-full")
	@$(BIN)/python -m benchmarks $(ARGS)

docs: $(STAMP) ## Check that the pages' links and commands are right
	$(BIN)/python -m pytest tests/console/test_docs.py

estate-up: $(STAMP) ## Start PostgreSQL, n8n and Prefect of the demo and leave them running
	@$(BIN)/python -m estate up

estate-down: $(STAMP) ## Stop them again
	@$(BIN)/python -m estate down

browser: $(STAMP) ## Make sure that there is a Chromium for the tests
	@$(BIN)/python -m tests.browser.chromium

pictures: browser ## Take the documentation's pictures anew, from a real recovery in the browser
	REINSTATE_PICTURES=docs/pictures $(BIN)/python -m pytest -m browser tests/browser/test_recover_in_browser.py
