# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` work from a clean clone on a bare Debian; every other target is a part of them.

PYTHON ?= python3
VENV := .venv
TESTBED := $(VENV)/bin/testbed
JOBS ?= 2

.PHONY: help setup schedulers demo test test-all unit lint workflows ci nightly release image clean

help:
	@echo 'make demo      set up and judge two real candidates: one passes, one is rejected'
	@echo 'make setup     system packages, Python environment, guest image; the command is $(TESTBED)'
	@echo 'make schedulers  also build scx_bpfland and scx_lavd from the crates registry, to be judged by name'
	@echo 'make test      set up and test, real guests among it (about 15 minutes on 2 cores)'
	@echo 'make test-all  every test'
	@echo 'make unit      tests without guests'
	@echo 'make lint      ruff, mypy, reuse, and what CI runs: zizmor, schemas of GitHub'
	@echo 'make ci        what CI runs on every change: lint, and the tests without guests'
	@echo 'make release   wheel, sdist, image, QEMU and their hashes in dist/, the wheel tried outside the clone'
	@echo 'make nightly   the corpus, compared with the nights before (5 hours at most: NIGHTLY_BUDGET=90min)'

setup: $(VENV)/.installed
	@ci/system-packages
	@$(TESTBED) image build

$(VENV)/.installed: pyproject.toml requirements.lock
	@ci/system-packages
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/pip install --quiet --require-hashes --requirement requirements.lock
	@$(VENV)/bin/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

schedulers: setup
	@$(TESTBED) image schedulers

demo: setup
	@ci/demo

test: setup lint
	@$(VENV)/bin/pytest -n $(JOBS) --dist worksteal -m 'not slow'

test-all: setup lint
	@$(VENV)/bin/pytest -n $(JOBS) --dist worksteal

unit: $(VENV)/.installed
	@$(VENV)/bin/pytest -n $(JOBS) --dist worksteal -m 'not guest'

ci: setup lint unit

nightly: setup
	@ci/nightly

release: setup
	@ci/release

lint: $(VENV)/.installed workflows
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/reuse lint --quiet

workflows: $(VENV)/.installed
	@$(VENV)/bin/zizmor --offline --quiet --no-progress .github/workflows ci/gate ci/merge ci/templates/github.yml
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml ci/templates/github.yml
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci ci/templates/gitlab-ci.yml
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-actions ci/gate/action.yml ci/merge/action.yml

clean:
	rm -rf $(VENV) cases dist build
