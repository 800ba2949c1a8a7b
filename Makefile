# `make` alone prints what there is to do. Users need Python 3.11 and `make run`; nothing else here
# asks for more, except the spec linters (Node.js) and the browser test (Chromium and its driver).
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --require-virtualenv --quiet
PACKAGES := openapi handlers models storage
# Bytecode is kept, whatever the shell says: the tests start hundreds of processes of the same modules.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: help install install-dev run test check contract contract-bounded browser bench evaluate \
	format lint types spec spec-lint clients lock clean

help: ## print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- Installing. The stamps make a second call immediate; afterwards everything runs offline. ----

install: $(VENV)/.installed ## .venv from requirements.lock
install-dev: $(VENV)/.installed-dev ## the same, with what tests and linters need

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python requirements.lock setup.cfg pyproject.toml
	@echo "Installing $$(grep -c '^[a-z]' requirements.lock) packages into $(VENV), by hash; this takes a minute or two."
	$(PIP) install --require-hashes --no-deps -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(PIP) install --require-hashes --no-deps -r requirements-dev.lock
	@touch $@

node_modules/.installed: package.json package-lock.json .npmrc
	npm ci --ignore-scripts
	@touch $@

# ---- Using ----

run: install ## serve on loopback, with a demo tenant made once; prints its API key and the URLs
	$(BIN)/booga serve --demo

# ---- Proving ----

test: install-dev ## the test suite, without long contract runs and the browser
	$(BIN)/pytest -n 2 --dist loadgroup

check: ## exactly what CI runs
	bash .ci/run

contract: clients browser ## the whole: generated clients, browser, every Schemathesis phase on each database (long)
	$(BIN)/pytest -m contract tests/contract

contract-bounded: install-dev ## the same with a fixed seed and few examples, as CI runs it
	$(BIN)/pytest -m contract_bounded tests/contract

browser: install-dev ## the documentation pages in headless Chromium
	$(BIN)/pytest -m browser tests/browser

bench: install-dev ## figures beside their yardsticks, as ratios in one run
	$(BIN)/python -m tests.benchmarks

evaluate: install-dev ## retrieval quality on questions whose right page is known
	$(BIN)/python -m tests.benchmarks.evaluate

# ---- Keeping the house ----

format: install-dev ## rewrite the Python files in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: install-dev ## format, lint rules and layers, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache

types: install-dev ## mypy
	$(BIN)/mypy

spec: install ## bundle the contract, then lint it
	$(BIN)/booga spec bundle
	@$(MAKE) --no-print-directory spec-lint

spec-lint: node_modules/.installed ## Redocly and Spectral on the bundle
	npx --no-install redocly lint
	npx --no-install spectral lint openapi/dist/openapi.yaml --fail-severity=error

# What a generator leaves out it warns of; a client without that operation would be half a client.
clients: install-dev node_modules/.installed ## prove that the bundle makes TypeScript and Python clients
	rm -rf build/client build/client.d.ts
	npx --no-install openapi-typescript --default-non-nullable=false
	npx --no-install tsc --noEmit --strict build/client.d.ts
	PATH="$(CURDIR)/$(BIN):$$PATH" openapi-python-client generate --fail-on-warning --meta none \
		--path openapi/dist/openapi.yaml --output-path build/client
	$(BIN)/python -W error -m compileall -q build/client
	$(BIN)/pytest -m clients tests/clients

# Pins stay as they are while the requirements allow them. The runtime lock is resolved under the
# development one, so that both install side by side; the second file holds only what the first does not.
UPGRADE :=
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-annotate --no-header --excludes requirements-excluded.in
lock: install-dev ## resolve the requirements into the lock files (UPGRADE=--upgrade: newer ones)
	@mkdir -p build && cat requirements.lock requirements-dev.lock > build/all.lock
	$(LOCK) $(UPGRADE) requirements-dev.in -o build/all.lock
	$(LOCK) --upgrade -c build/all.lock requirements.in -o requirements.lock
	$(LOCK) --upgrade -c build/all.lock requirements-dev.in -o requirements-dev.lock \
		$$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' requirements.lock)

clean: ## remove what this file made; never data/
	rm -rf $(VENV) node_modules build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(PACKAGES) tests -name __pycache__ -prune -exec rm -rf {} +
