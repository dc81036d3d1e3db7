# Two commands do it all on a fresh machine: `make demo` and `make test`. Each installs what is missing first.
SHELL := /bin/sh
BIN := .venv/bin
SERVERS := rabbitmq-server redis-server
# One file for all systems and Pythons: markers say what is needed where, and every version has wheels.
COMPILE = build/lock/bin/uv pip compile -q --universal --python-version 3.11.0 --fork-strategy fewest --no-build --generate-hashes --no-header

.PHONY: help demo test lint mutants bench screenshots up setup lock clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what a machine needs: servers, virtual environment
	@sh deploy/setup.sh --dev $(SERVERS) haproxy postgres=postgresql chromium

demo: ## Run 200 simulated calls through the whole system and compare each with the truth
	@sh deploy/setup.sh --runtime $(SERVERS)
	@$(BIN)/callfold demo

up: ## Start everything on this machine until Ctrl-C
	@sh deploy/setup.sh --runtime $(SERVERS)
	@$(BIN)/callfold up

test: setup lint ## Lint, type-check and test everything on real servers, with branch coverage
	@rm -f .coverage .coverage.*
	@$(BIN)/coverage run -m pytest -n 3 --dist loadfile --no-loadscope-reorder
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

lint: setup ## Format, rules, types, import layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | grep -E 'KEPT|BROKEN|not allowed|^-' ; $(BIN)/lint-imports --no-cache >/dev/null

mutants: setup ## Break the code on purpose, one patch at a time, and see the tests fail (about 15 minutes)
	@$(BIN)/python -m tests.mutants.run

bench: ## Measure ingress and the whole way against the obvious implementation and a bare handler
	@sh deploy/setup.sh --dev $(SERVERS) wrk
	@$(BIN)/python bench/run.py

screenshots: setup ## Take the pictures of docs/images anew
	@SCREENSHOTS=docs/images $(BIN)/python -m pytest -q tests/browser -k main_views

lock: ## Pin the dependencies of pyproject.toml with hashes, for every supported Python; present versions stay (UPGRADE=-U lifts them)
	@$(or $(PYTHON),python3) -m venv --clear build/lock
	@build/lock/bin/pip install -q --disable-pip-version-check uv==0.13.9
	@$(COMPILE) $(UPGRADE) -o deploy/requirements.txt pyproject.toml
	@$(COMPILE) $(UPGRADE) --extra test -c deploy/requirements.txt -o tests/requirements.txt pyproject.toml
	@rm -rf build/lock

clean: ## Remove the virtual environment and everything local
	rm -rf .venv .callfold build *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache
