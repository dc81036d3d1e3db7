# Two commands do it all on a fresh machine: `make demo` and `make test`. Each installs what is missing first.
SHELL := /bin/sh
BIN := .venv/bin
SERVERS := rabbitmq-server redis-server
# One file for all systems and Pythons: markers say what is needed where, and every version has wheels.
COMPILE = build/lock/bin/uv pip compile -q --universal --python-version 3.11.0 --fork-strategy fewest --no-build --generate-hashes --no-header

# The number of test processes follows the cores; tests/conftest.py says which tests run beside each other.
WORKERS := -n auto --dist loadscope --no-loadscope-reorder
# Each with its output in one piece, where make can do that.
SIDE_BY_SIDE := $(MAKE) -s -j $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# Bytecode is kept, whatever the user's machine has set: hundreds of processes would compile the same files.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo up check test coverage test-volume lint mutants bench screenshots setup lock clean format rules types layers english serverless

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what a machine needs: servers, virtual environment
	@sh deploy/setup.sh --dev $(SERVERS) haproxy postgres=postgresql chromium

demo: ## Run 200 simulated calls through the whole system and compare each with the truth
	@sh deploy/setup.sh --runtime $(SERVERS)
	@$(BIN)/callfold demo

up: ## Start everything on this machine until Ctrl-C
	@sh deploy/setup.sh --runtime $(SERVERS)
	@$(BIN)/callfold up

check: setup ## Check format, rules, types and import layers, and run every test that needs no server
	@$(SIDE_BY_SIDE) format rules types layers english serverless

test: setup ## Check everything and run every distinct test on real servers; or one file: make test FILE=tests/unit/test_call.py
ifdef FILE
	@$(BIN)/python -m pytest -q $(FILE)
else
	@$(SIDE_BY_SIDE) format rules types layers english
	@$(BIN)/python -m pytest --durations=20 $(WORKERS)
endif

coverage: setup ## Run every distinct test with branch coverage; fails below 95 % (half as long again as `make test`)
	@mkdir -p build && rm -f .coverage .coverage.* build/failed
	@{ $(BIN)/coverage run -m pytest $(WORKERS) || touch build/failed; } | tee build/tests.log
	@test ! -e build/failed
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report
	@tail -n 1 build/tests.log

test-volume: setup ## Run the large sizes of tests, then try every mutant (over an hour)
	@$(BIN)/python -m pytest -m volume $(WORKERS)
	@$(BIN)/python -m tests.mutants.run

lint: setup ## Check format, rules, types and import layers
	@$(SIDE_BY_SIDE) format rules types layers english

mutants: setup ## Break the code on purpose, one patch at a time, and see the tests fail (a minute for each); or one: make mutants NAME=untold-content
	@$(BIN)/python -m tests.mutants.run $(NAME)

format:
	@$(BIN)/ruff format --check .

rules:
	@$(BIN)/ruff check .

types:
	@$(BIN)/mypy

layers:
	@report=$$($(BIN)/lint-imports) || { echo "$$report"; exit 1; }; echo "$$report" | tail -n 1

english:
	@$(BIN)/codespell
	@$(BIN)/python -m tests.helpers.english

serverless:
	@$(BIN)/python -m pytest -q $(WORKERS) -m "not (redis or rabbitmq or postgres or s3 or processes)" tests/unit tests/mutants

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
	rm -rf .venv .callfold build *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
