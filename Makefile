# make help   says what there is.
.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin
# Containers, networks and mounts need root: with sudo when this is a user.
SUDO := $(shell [ "$$(id -u)" -eq 0 ] || echo sudo --preserve-env=SKERRY_HOME,SKERRY_SOAK,SKERRY_SOAK_SEED,PATH)
PROPERTIES := same
TIMES := free
PYTEST = $(SUDO) env SKERRY_PROPERTIES=$(PROPERTIES) SKERRY_TIMES=$(TIMES) PYTHONDONTWRITEBYTECODE=1 $(BIN)/pytest -p no:cacheprovider
UP_ARGS ?=
TEST_ARGS ?=
FUZZ_ARGS ?=
CONFORMANCE_ARGS ?=
IMAGE ?=
BUILD_ARGS ?=
BUILDER ?= $(firstword $(foreach program,podman buildah docker,$(if $(shell command -v $(program)),$(program))))

.PHONY: help setup setup-dev up install down status test lint format unit fuzz integration e2e conformance faults bench vm image clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:
	@deploy/bootstrap.sh

setup-dev:
	@deploy/bootstrap.sh dev

up: setup ## cloud, edge, containers, broker and a device on this machine (UP_ARGS="--node-name edge-7")
	@$(SUDO) $(BIN)/skerry up $(UP_ARGS)

install: ## on a board: what a node needs, in /opt/skerry, before `skerry join` (again, it upgrades; pods run on)
	@deploy/bootstrap.sh board

down: ## stop all of it and remove every process, mount, interface and rule it made
	@[ ! -x $(BIN)/skerry ] || $(SUDO) $(BIN)/skerry down

status: ## say what runs
	@$(SUDO) $(BIN)/skerry status

test: lint ## everything that must pass: lint, types, contracts, and all tests
	$(PYTEST) tests/unit tests/integration tests/e2e $(TEST_ARGS)
	$(PYTEST) tests/faults -m quick $(TEST_ARGS)

lint: setup-dev ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup-dev ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

unit: setup-dev ## pure modules: no network, no sleep
	$(PYTEST) tests/unit $(TEST_ARGS)

fuzz: PROPERTIES := search
fuzz: setup-dev ## decoders guided by coverage (FUZZ_ARGS="--seconds 600 hub-frame"), then properties with new examples (TEST_ARGS='-k twin')
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --only-binary atheris --group fuzz || echo "atheris cannot be had here"
	$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)
	$(PYTEST) tests/unit -m hypothesis $(TEST_ARGS)

integration: setup-dev ## with real files, sockets, containerd and a broker
	$(PYTEST) tests/integration $(TEST_ARGS)

e2e: setup-dev ## the whole, with the stock kubectl
	$(PYTEST) tests/e2e $(TEST_ARGS)

conformance: setup-dev ## what Kubernetes asks of a node, and a table of what passes (10 minutes; CONFORMANCE_ARGS='-v -k probes')
	@$(SUDO) $(BIN)/python -m tests.conformance $(CONFORMANCE_ARGS)

faults: TIMES := held
faults: setup-dev ## what must be survived, and a table of the cases (90 minutes, SKERRY_SOAK=seconds of them for all at once; `make test` has the quick ones)
	$(PYTEST) tests/faults $$($(BIN)/python -m tests.faults.cases) $(TEST_ARGS)

bench: setup-dev ## print figures; asserts nothing
	@$(SUDO) $(BIN)/python -m tests.bench

vm: setup-dev ## tests on a virtual machine with systemd and cgroups of version 2 (TEST_ARGS=..., VM_ACCEL=kvm)
	@$(SUDO) env VM_ACCEL=$(VM_ACCEL) $(BIN)/python tests/vm.py $(TEST_ARGS)

image: ## cloudcore as a container image (IMAGE=registry.example.org/skerry/cloudcore:0.1.0, with podman, buildah or docker)
	@[ -n "$(IMAGE)" ] || { echo "make image: say what it is called: IMAGE=registry.example.org/skerry/cloudcore:0.1.0" >&2; exit 1; }
	@[ -n "$(BUILDER)" ] || { echo "make image: needs podman, buildah or docker" >&2; exit 1; }
	$(BUILDER) build $(BUILD_ARGS) -f deploy/container/Containerfile -t "$(IMAGE)" .

clean: ## remove what was built and cached (not the state of `make up`)
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
