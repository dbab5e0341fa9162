# Cutpoint. `make` alone lists the targets. Every target sets up what it needs first; a set-up that is done costs next to nothing.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
TENSORFLOWJS := 4.22.0
# backports-strenum 1.3 says that it is not for Python 3.11 and later: pip heeds an upper bound, uv does not.
CONSTRAINTS := backports-strenum<1.3

# Taken from the command line only: OUT and DATA are common names in an environment.
given = $(if $(filter command,$(origin $(1))),$($(1)))
config := $(call given,CONFIG)
data := $(call given,DATA)
out := $(call given,OUT)
runtimes := $(call given,RUNTIMES)
arguments := $(call given,ARGS)

# An environment that was set up with GPU=1 once stays so.
gpu := $(filter-out 0,$(GPU))$(wildcard $(VENV)/.locked-gpu)
locks := requirements.lock $(if $(gpu),requirements-gpu.lock)
locked := $(VENV)/.locked$(if $(gpu),-gpu)

# 2 GB take a while: on a terminal the installer shows how far it is.
quiet = $(shell test -t 2 || echo --quiet)

javascript := exporters/javascript/runner.mjs
javascript_sources := $(filter-out %/hatch_build.py,$(wildcard web_demo/*.* web_demo/src/* web_demo/self_test/*.* web_demo/self_test/*/*.*))

.PHONY: help setup setup-browser export verify demo test test-all bench screenshots lint backbone lock readme wheel clean always

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.installed web_demo/node_modules/.built ## Everything but a browser, from the lock files (PYTHON=python3.12, GPU=1)
	@:

setup-browser: setup ## A Chromium for the browser tests, where there is none yet
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do
	    if command -v "$$name" >/dev/null; then exit 0; fi
	done
	if $(BIN)/python -c "$$PLAYWRIGHT_HAS_CHROMIUM"; then exit 0; fi
	if [ "$$(id -u)" = 0 ] && grep -qx 'ID=debian' /etc/os-release; then
	    echo "setup-browser: installing Debian's chromium (CUTPOINT_NO_BROWSER=1 goes without)"
	    apt-get update -qq
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
	else
	    echo "setup-browser: downloading Playwright's Chromium (CUTPOINT_NO_BROWSER=1 goes without)"
	    $(BIN)/playwright install chromium
	fi

export: setup ## The main job: data to verified artifacts (CONFIG=my.toml, DATA=photos/, OUT=folder; else the embedded example)
	@$(BIN)/cutpoint run $(if $(config),'$(config)') $(if $(data),--data '$(data)') $(if $(out),--out '$(out)') \
	    $(if $(runtimes),--runtimes '$(runtimes)')

verify: setup ## Compare the artifacts of OUT, or of the newest run, with their Keras model again (RUNTIMES=all)
	@$(BIN)/cutpoint verify $(if $(out),'$(out)') $(if $(runtimes),--runtimes '$(runtimes)')

demo: setup ## The page, served with the artifacts of OUT or of the newest run
	@$(BIN)/cutpoint demo $(if $(out),'$(out)')

browser := $(if $(filter-out 0,$(CUTPOINT_NO_BROWSER)),,setup-browser)

# Files stay whole: what the tests of one file share is made once. tests/conftest.py says which begin first.
workers := -n 2 --dist loadfile --no-loadscope-reorder

test: setup $(browser) ## The tests, real runtimes and browser included (ARGS="-k parity"; CUTPOINT_NO_BROWSER=1)
	@$(BIN)/python -m pytest -m 'not slow' $(workers) $(arguments)

# In two parts, each with processes of its own: in one, what many exports leave behind adds up to most of a machine's memory.
test-all: setup $(browser) ## The tests, the slow ones too
	@part() { $(BIN)/python -m pytest -m "$$1" $(workers) $(arguments); }
	quick=0 slow=0
	part 'not slow' || quick=$$?
	part slow || slow=$$?
	# What ARGS asks for may be in one of them alone, of which the other says 5.
	case "$$quick $$slow" in '0 0' | '0 5' | '5 0') exit 0 ;; esac
	exit $$((quick ? quick : slow))

bench: setup ## What is timed
	@$(BIN)/python -m pytest -o 'python_files=bench_*.py' -s tests/benchmarks $(arguments)

screenshots: setup $(browser) ## Pictures of the page in runs/screenshots, and the README's, made again from one of them
	@$(BIN)/python -m pytest -q tests/test_page_screens.py -k kept
	$(BIN)/python -m tests.page_picture

lint: setup ## Style, types of the page's JavaScript, and no address in a lock file
	@$(BIN)/ruff check
	$(BIN)/ruff format --check
	web_demo/node_modules/.bin/tsc --project web_demo
	if grep -nE '(https?|file)://[^"]*\.(tgz|whl|tar\.gz)|"resolved"|--(extra-)?index-url|--find-links' requirements*.lock web_demo/package-lock.json; then
	    echo "lint: a lock file names an address; make it again without" >&2
	    exit 1
	fi

backbone: setup ## Pretrain the embedded backbone again (up to an hour; goes on where it was stopped)
	@$(BIN)/python -m pipeline.quickstart.pretrain $(arguments)

readme: setup ## The README's table of backbones, made again from the code's
	@$(BIN)/python -m pipeline.backbones.table README.md

wheel: setup ## The wheel, in dist/
	@rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

lock: ## Resolve the Python dependencies again (UPGRADE=1 lets go of the present versions)
	@$(find_python)
	work=$$(mktemp -d)
	trap 'rm -rf "$$work"' EXIT
	"$$python" -m venv "$$work/venv"
	"$$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
	compile() {
	    "$$work/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header "$$@"
	}
	for name in requirements requirements-gpu; do
	    if [ -z '$(UPGRADE)' ] && [ -e "$$name.lock" ]; then cp "$$name.lock" "$$work/$$name"; fi
	done
	echo '$(CONSTRAINTS)' >"$$work/constraints"
	compile pyproject.toml --extra train --group dev --constraint "$$work/constraints" --no-annotate --output-file "$$work/requirements" >/dev/null
	echo 'tensorflowjs==$(TENSORFLOWJS)' | compile - --no-deps --no-annotate >"$$work/tensorflowjs"
	{
	    echo '# Made by `make lock`. Install with --no-deps --require-hashes: tensorflowjs, at the end, asks for what it does not use.'
	    cat "$$work/requirements" "$$work/tensorflowjs"
	} >"$$work/requirements.lock"
	held=$$(sed -nE 's/^([a-z0-9._-]+)==.*/--no-emit-package \1/p' "$$work/requirements.lock" | sort -u)
	compile pyproject.toml --extra gpu --constraint "$$work/requirements.lock" --no-annotate $$held \
	    --output-file "$$work/requirements-gpu" >/dev/null
	{
	    echo '# Made by `make lock`: what GPU=1 adds to requirements.lock. Install with --no-deps --require-hashes.'
	    cat "$$work/requirements-gpu"
	} >"$$work/requirements-gpu.lock"
	cp "$$work/requirements.lock" "$$work/requirements-gpu.lock" .

clean: ## Remove what set-up and builds made; the results in runs/ stay
	@rm -rf $(VENV) dist exporters/javascript web_demo/node_modules .pytest_cache .ruff_cache
	find pipeline exporters tests web_demo -name __pycache__ -prune -exec rm -rf {} +
	if [ -d runs ]; then echo "runs/ is left: remove it yourself when its results may go"; fi

# --- set-up, step by step; a step's stamp is written when the step is done -----------------------------------------------------------

# Leaves the interpreter in $$python.
define find_python
    python=
    for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do
        if python=$$("$$candidate" -c "$$SUPPORTED_PYTHON" 2>/dev/null); then break; fi
    done
    if [ -z "$$python" ]; then
        found=$$($(or $(PYTHON),python3) --version 2>/dev/null) || found="no $(or $(PYTHON),python3)"
        echo "setup: Cutpoint needs Python 3.11, 3.12 or 3.13, and there is $$found; name another: make setup PYTHON=python3.12" >&2
        exit 1
    fi
endef

define SUPPORTED_PYTHON
import sys
sys.exit(1) if not (3, 11) <= sys.version_info < (3, 14) else print(sys.executable)
endef
export SUPPORTED_PYTHON

define PLAYWRIGHT_HAS_CHROMIUM
import os, sys
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    sys.exit(not os.path.exists(playwright.chromium.executable_path))
endef
export PLAYWRIGHT_HAS_CHROMIUM

# Not empty where PYTHON= asks for another version than the environment has.
version_of = $(shell $(1) -c 'import platform; print(platform.python_version())' 2>/dev/null || echo none)
ifneq ($(and $(call given,PYTHON),$(wildcard $(BIN)/python)),)
    other_python := $(if $(filter $(call version_of,$(PYTHON)),$(call version_of,$(BIN)/python)),,always)
endif

# uv makes the environment equal to the lock; pip, which only ever adds, starts from an empty one.
$(locked): $(locks) $(other_python)
	@if command -v uv >/dev/null; then
	    if [ -n '$(other_python)' ] || ! $(BIN)/python -c "$$SUPPORTED_PYTHON" >/dev/null 2>&1; then
	        $(find_python)
	        rm -rf $(VENV)
	        uv venv --quiet --no-python-downloads --python "$$python" $(VENV)
	    fi
	    rm -f $(VENV)/.locked* $(VENV)/.installed
	    echo "setup: installing $(strip $(locks)) with uv (about 2 GB, a minute or two)"
	    uv pip sync $(quiet) --require-hashes --python $(BIN)/python $(locks)
	else
	    $(find_python)
	    if ! "$$python" -c 'import ensurepip' 2>/dev/null; then
	        echo "setup: $$python cannot make an environment; on Debian: apt-get install python3-venv" >&2
	        exit 1
	    fi
	    rm -rf $(VENV)
	    "$$python" -m venv $(VENV)
	    echo "setup: installing $(strip $(locks)) with pip (about 2 GB, a few minutes)"
	    $(BIN)/python -m pip install $(quiet) --disable-pip-version-check --no-deps --require-hashes $(addprefix -r ,$(locks))
	fi
	touch $@

$(VENV)/.installed: $(locked) pyproject.toml
	@if command -v uv >/dev/null; then
	    uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	else
	    $(BIN)/python -c 'import pip' 2>/dev/null || $(BIN)/python -m ensurepip >/dev/null
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	fi
	touch $@

web_demo/node_modules/.installed: web_demo/package.json web_demo/package-lock.json
	@if ! command -v node >/dev/null; then
	    echo "setup: Node.js is missing (20 or later); on Debian: apt-get install nodejs npm" >&2
	    exit 1
	elif ! node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'; then
	    echo "setup: Node.js 20 or later is needed, found $$(node --version); on Debian 13: apt-get install nodejs npm" >&2
	    exit 1
	elif ! command -v npm >/dev/null; then
	    echo "setup: npm is missing; on Debian: apt-get install npm" >&2
	    exit 1
	fi
	echo "setup: installing the Node packages"
	npm --prefix web_demo ci --no-audit --no-fund --loglevel=error
	touch $@

web_demo/node_modules/.built: web_demo/node_modules/.installed $(javascript_sources) $(if $(wildcard $(javascript)),,always)
	@echo "setup: building exporters/javascript"
	npm --prefix web_demo run --silent build
	test -e $(javascript)
	touch $@
