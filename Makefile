# What a newcomer types. Every target makes .venv by itself; Python 3.11 with pip, make and git are enough.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-django test-images e2e lint format bench bench-peers keep-release images forge-jobs-worker forge-jobs-operator clean

help:
	@echo "make demo                 hash and count a folder of files with a queue on SQLite"
	@echo "make demo DIR=~/music     the same with a folder of yours"
	@echo "make demo POSTGRES=1      the same on a PostgreSQL that the demo starts and stops"
	@echo "make test                 every test, on SQLite and PostgreSQL; ARGS=... goes to pytest"
	@echo "make test-django          Django's own tests of its tasks, which pip downloads, with jobs; ARGS=postgres: not on SQLite"
	@echo "make test-images          both images, by running them; needs docker, or podman beside a docker that only builds"
	@echo "make e2e                  the whole on a kind cluster, 25 minutes; needs kind, docker, kubectl and helm"
	@echo "make lint                 style, types, and which module may import which"
	@echo "make format               rewrite the code in the house style"
	@echo "make docs                 the pages and the reference as a site in build/site; a broken link fails it"
	@echo "make bench                speed, beside bare loops and other queues; ARGS=... goes to it"
	@echo "make bench-peers          speed, beside every other queue that can be installed; ARGS=... goes to it"
	@echo "make keep-release         keep the databases of this release, for later ones to be tested with"
	@echo "make images               build the images of worker and operator with docker; TAG=... (default latest)"
	@echo "make clean                remove .venv and everything that was built"
	@echo
	@echo "PYTHON=python3.13 make ...  uses another Python (3.11 or newer)"

# Exported, and quoted by the shell, so that a folder may have any name.
export DIR POSTGRES

# Where an environment forbids to write bytecode, each of the thousand processes of the tests compiles every module anew.
export PYTHONDONTWRITEBYTECODE :=

demo: $(VENV)/.installed
	@$(BIN)/python -m forge_jobs.demo $${POSTGRES:+--postgres} -- $${DIR:+"$$DIR"}

test: $(VENV)/.installed
	$(BIN)/pytest -n 5 $(ARGS)

# Django 6.1 needs Python 3.12: make test-django VENV=build/venv PYTHON=python3.13
test-django: $(VENV)/.installed
	$(BIN)/python worker/tests/integrations/djangos_own_tests.py $(ARGS)

test-images: $(VENV)/.installed
	$(BIN)/pytest tests/images $(ARGS)

e2e: $(VENV)/.installed
	$(BIN)/pytest tests/e2e -n 4 --maxschedchunk 1 --tb=short $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases worker/tests
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What mkdocs-material says of its successor is no warning about the pages.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks $(ARGS)

# Each queue is installed in a folder of its own below build/peers, at the first run.
bench-peers: $(VENV)/.installed
	$(BIN)/python -m benchmarks.comparison $(ARGS)

keep-release: $(VENV)/.installed
	cd worker && ../$(BIN)/python -m tests.releases.keep $$(sed -n 's/^version = "\(.*\)"$$/\1/p' ../pyproject.toml)

# DOCKER may be another engine's command, such as podman.
DOCKER ?= docker
TAG ?= latest
IMAGES := forge-jobs-worker forge-jobs-operator
images: $(IMAGES)

$(IMAGES): forge-jobs-%: Dockerfile.%
	$(DOCKER) build -f $< -t $@:$(TAG) \
		--build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null) .

clean:
	rm -rf $(VENV) build dist *.egg-info worker/*.egg-info demo-report.json
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A Python without ensurepip (Debian's, without python3-venv) still makes an environment; its own pip fills it.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("forge-jobs needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + "; say which one to use: make PYTHON=python3.13 ...")'
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(VENV)/bin/python --quiet --disable-pip-version-check install pip; }

# What pip and setuptools say is of interest only when it failed.
comma := ,
install = $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '$(1)' >$(VENV)/install.log 2>&1 || \
	{ cat $(VENV)/install.log; exit 1; }

# The stamps are made last, so an installation that was broken off is begun again.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/pip
	@echo "Installing forge-jobs and its tools into $(VENV) (once)"
	@$(call install,.[dev])
	@touch $@

$(VENV)/.installed-docs: pyproject.toml $(VENV)/.installed
	@echo "Installing what makes the site into $(VENV) (once)"
	@$(call install,.[dev$(comma)docs])
	@touch $@

$(VENV)/.installed-bench: pyproject.toml $(VENV)/.installed
	@echo "Installing what the benchmark compares with into $(VENV) (once)"
	@$(call install,.[dev$(comma)bench])
	@touch $@
