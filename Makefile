# `make demo` and `make test` work on a fresh machine. Each target first installs what is missing.
SHELL := /bin/sh
BIN := .venv/bin
SERVERS := rabbitmq-server redis-server
DEPLOY_TOOLS := haproxy nginx=nginx-light promtool=prometheus prometheus-alertmanager \
    systemd-analyze=systemd buildah mmdebstrap crun ip=iproute2 sqlite3
# One lock file for all systems and Pythons: markers select the packages, and every version has wheels.
COMPILE = build/lock/bin/uv pip compile -q --universal --python-version 3.11.0 --fork-strategy fewest --no-build --generate-hashes --no-header

# The number of test processes depends on the cores. tests/conftest.py decides which tests run at the same time.
WORKERS := -n auto --dist loadscope --no-loadscope-reorder
CHECKS := format rules types layers english
# Run targets in parallel, with the output of each in one piece if make supports that.
IN_PARALLEL := $(MAKE) -s -j $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# Keep bytecode even if the user's environment disables it. Otherwise hundreds of processes would compile the same files.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo up check test coverage test-volume test-deploy test-clients attack chaos lint mutants bench matrix screenshots image setup lock audit clean format rules types layers english serverless manifests

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install servers and the virtual environment
	@sh deploy/setup.sh --dev $(SERVERS) haproxy postgres=postgresql chromium curl

demo: ## Run 200 simulated calls through the whole system and compare each with the simulation
	@sh deploy/setup.sh --runtime $(SERVERS)
	@$(BIN)/callfold demo

up: ## Run the whole system on this machine until Ctrl-C
	@sh deploy/setup.sh --runtime $(SERVERS)
	@$(BIN)/callfold up

check: setup ## Check format, rules, types, import layers and English, and run every test that needs no server
	@$(IN_PARALLEL) $(CHECKS) serverless

test: setup ## Run all checks and every distinct test on real servers (one file: make test FILE=tests/unit/test_call.py)
ifdef FILE
	@$(BIN)/python -m pytest -q $(FILE)
else
	@export TESTS_PACE=$$($(BIN)/python -m tests.helpers.pace); \
	$(IN_PARALLEL) $(CHECKS) & checks=$$!; trap 'kill $$checks' INT TERM; \
	$(BIN)/python -m pytest --durations=20 $(WORKERS); tests=$$?; \
	wait $$checks || { echo "A check failed. Its output is above; make lint repeats it."; exit 1; }; exit $$tests
endif

coverage: setup ## Run every distinct test with branch coverage; fails below 95 % (1.5 times as long as `make test`)
	@mkdir -p build && rm -f .coverage .coverage.* build/failed
	@{ $(BIN)/coverage run -m pytest $(WORKERS) || touch build/failed; } | tee build/tests.log
	@test ! -e build/failed
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report
	@tail -n 1 build/tests.log

test-volume: setup ## Run the large sizes of tests, then all mutants (over an hour)
	@$(BIN)/python -m pytest -m volume $(WORKERS)
	@$(BIN)/python -m tests.mutants.run

test-deploy: setup ## Check every file of deploy/ with its own tool, build the image and run it (the image needs root on Debian)
	@sh deploy/setup.sh --dev $(DEPLOY_TOOLS)
	@sh tests/deploy/tools.sh
	@$(BIN)/python -m pytest -m deploy --durations=20 $(if $(FILE),$(FILE),tests/deploy)

test-clients: setup ## Test the TypeScript client, and what other JavaScript libraries read of Callfold (needs Node 20 or later)
	@sh tests/clients/tools.sh
	@$(BIN)/python -m pytest -m clients --durations=10 $(if $(FILE),$(FILE),tests/clients)

attack: setup ## Attack a running stack on loopback for 10 minutes and hold the limits of docs/security.md
	@ATTACK_SECONDS=$(or $(ATTACK_SECONDS),20) $(BIN)/python -m pytest -q --durations=0 tests/system/attacks

matrix: setup ## Run tests on each supported RabbitMQ, Redis and Valkey (needs root on Debian; one: make matrix ON=trixie-valkey)
	@ON="$(ON)" $(BIN)/python -m tests.matrix.run $(FILE)

chaos: setup ## Break everything for 10 minutes under load, while an auditor watches (CHAOS_SECONDS, _SEED, _RATE, _REDIS, _FAULTS, _SUBSCRIBERS=1)
	@$(BIN)/python -m tests.chaos

lint: setup ## Check format, rules, types, import layers and English
	@$(IN_PARALLEL) $(CHECKS)

mutants: setup ## Check that tests fail for each deliberate fault, about a minute each (one: make mutants NAME=untold-content)
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

manifests: setup ## Make the files that follow from the Helm chart, deploy/*.conf and the settings: base of kustomize, schema of the values
	@sh tests/deploy/tools.sh
	@$(BIN)/python -m deploy.helm.manifests

bench: ## Benchmark ingress and the whole path against a naive implementation and a bare handler
	@sh deploy/setup.sh --dev $(SERVERS) wrk
	@$(BIN)/python bench/run.py

screenshots: setup ## Recreate the screenshots in docs/images
	@SCREENSHOTS=docs/images $(BIN)/python -m pytest -q tests/browser -k main_views

image: ## Build the container image with docker, or else with buildah (TAG=callfold:local)
	@sh deploy/image.sh $(or $(TAG),callfold:local)

lock: ## Pin the dependencies of pyproject.toml with hashes for every supported Python (upgrade them: UPGRADE=-U)
	@$(or $(PYTHON),python3) -m venv --clear build/lock
	@build/lock/bin/pip install -q --disable-pip-version-check uv==0.13.9
	@$(COMPILE) $(UPGRADE) --extra postgres --extra otel --extra jws -o deploy/requirements.txt pyproject.toml
	@$(COMPILE) $(UPGRADE) --extra test -c deploy/requirements.txt -o tests/requirements.txt pyproject.toml
	@$(COMPILE) $(UPGRADE) -o deploy/build-requirements.txt deploy/build-requirements.in
	@rm -rf build/lock

audit: ## Check the pinned packages against known vulnerabilities (asks the package index)
	@$(or $(PYTHON),python3) -m venv --clear build/audit
	@build/audit/bin/pip install -q --disable-pip-version-check pip-audit==2.10.1
	@build/audit/bin/pip-audit --strict --disable-pip --require-hashes -r deploy/requirements.txt
	@rm -rf build/audit

clean: ## Remove the virtual environment and all local data
	rm -rf .venv .callfold build *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
