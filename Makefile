# Everything a developer or CI does here; `make help` lists it. Needs python >= 3.11 with venv, git and make.
# The distribution's own Python comes first: it is built with profile-guided optimisation, and what version managers
# compile often is not and runs at half the speed.
PYTHON ?= $(shell for python in /usr/bin/python3 python3.11 python3; do \
  $$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; \
  done)
BIN := .venv/bin
# Packages that cannot live beside the gateway's own (two major versions of one SDK, servers, tools): one venv each.
PARTS := .venv/.stamp .venvs/mcp1/.stamp .venvs/mcp2/.stamp .venvs/servers/.stamp
# A real OPA server is on no package index. Go builds it once, in one to three minutes; without Go its tests are skipped.
OPA_VERSION := 1.20.2
OPA := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ostiary/opa-$(OPA_VERSION)/opa
# Identity providers, the MCP conformance suite, reference servers and TypeScript SDKs of MCP are Node programs; without npm
# the tests that need them are skipped.
NODES := .venvs/issuers/.stamp .venvs/conformance/.stamp .venvs/typescript/.stamp
# Large peers that one benchmark compares with; where they cannot be installed, it says so and goes without them.
RIVALS := .venvs/contextforge/.stamp .venvs/litellm/.stamp
PIP := --disable-pip-version-check install --quiet --progress-bar off
# The locks are complete: nothing is resolved again, which old versions of pip get wrong where extras are pinned.
PINNED := --require-hashes --only-binary :all: --no-deps
# uv takes a tenth of pip's time. Pip does what uv cannot: packages from where only pip was told to look, and the one that
# asks for another Python. Folder, words for uv, words for pip, requirements.
UV := .venv/bin/uv
installed = $(UV) pip install --quiet --python $1/bin/python $(PINNED) $2 $4 2>/dev/null || \
  .venv/bin/python -m pip --python $1/bin/python $(PIP) $(PINNED) $3 $4
CODE := $(wildcard gateway connectors sandbox planner tests loadtests deploy)
NAME ?=
ARGS ?=

# Tests start hundreds of gateways: without bytecode files each of them compiles all modules anew, half a second each.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup test check format demo recording sample campaign bench lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(if $(shell command -v go),$(OPA)) $(if $(shell command -v npm),$(NODES)) $(PARTS) .venvs/opa/.stamp  ## virtual environments with everything pinned by hash

test: setup  ## every test but the deep tier, with branch coverage of the core (ARGS="tests/unit -k word" runs some)
	$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),$(BIN)/python -m deploy.checks.suites)

check: .venv/.stamp .venvs/audit/.stamp  ## lint, types, architecture of imports, policies, advisories
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(CODE)
	$(BIN)/lint-imports
	$(BIN)/ostiary policy check policies
	$(BIN)/ostiary policy test policies
	.venvs/audit/bin/python -m deploy.checks.advisories requirements/base.txt

format: .venv/.stamp  ## format the code and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo: $(PARTS)  ## real servers, an agent, attacks, a log that proves it (ARGS=--json, ARGS=--require-all)
	$(BIN)/python -m deploy.demo $(ARGS)

recording: $(PARTS)  ## the demo as the animated picture of the README (ARGS=--check only compares)
	$(BIN)/python -m deploy.recording docs/demo.svg --title 'make demo' --size 110x32 --seconds 300 \
	  --mask '(?:no network, no files|degraded: no cap).*=what this machine can hold is tried out first' \
	  --mask 'bwrap [0-9.]+=bwrap' \
	  $(ARGS) -- $(BIN)/python -m deploy.demo --require-all

sample: .venv/.stamp  ## a short real run as the export in docs/sample-export
	$(BIN)/python -m deploy.sample

campaign: setup  ## a long series of runs that leaves evidence in docs/evidence (NAME=deep: the tests' deep tier, NAME=faults, NAME=hashicorp, NAME=kill, NAME=leases, NAME=policy-diff, NAME=rpc-fuzz, NAME=sdk-client)
	@test -n "$(NAME)" || { echo 'make campaign NAME=faults'; exit 2; }
	$(BIN)/python -m deploy.campaigns.$(subst -,_,$(NAME)) $(ARGS)

bench: setup .venvs/peers/.stamp $(if $(filter mcp,$(NAME)),$(RIVALS))  ## the gateway against the upstream and its peers; NAME=mcp: the same as an MCP gateway, NAME=policy: decisions, NAME=audit: a large log, NAME=leases: minted logins, NAME=kill: the kill switch
	$(BIN)/python -m loadtests.$(or $(subst -,_,$(NAME)),one_door) $(ARGS)

lock: .venv/.deps  ## resolve requirements/*.in anew, with hashes and without index addresses
	cd requirements && for name in base demo dev audit lock mcp1 mcp2 servers peers contextforge litellm opa; do \
	  source=$$name.in; python=3.11; case $$name in \
	    litellm) source='--no-emit-package litellm-enterprise litellm.in';; \
	    base) source=../pyproject.toml;; \
	    demo) source='--extra demo -c base.txt ../pyproject.toml';; \
	    opa) python=3.14;; \
	  esac; \
	  ../$(UV) pip compile $$source -o $$name.txt --upgrade --universal --python-version $$python --quiet \
	    --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-strip-extras \
	    --custom-compile-command 'make lock' || exit 1; \
	done

clean:  ## remove what make made
	rm -rf .venv .venvs .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* build *.egg-info

.venv/.deps: requirements/lock.txt requirements/demo.txt requirements/dev.txt
	@echo "== .venv: the gateway's dependencies and tools"
	@test -n "$(PYTHON)" || { echo 'no Python 3.11 or newer with venv is here (Debian: apt install python3-venv)'; exit 1; }
	@rm -rf .venv && $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip $(PIP) $(PINNED) -r $< || echo 'no uv here: pip installs, which takes longer'
	@$(call installed,.venv,--compile-bytecode,,$(patsubst %,-r %,$(wordlist 2,9,$^)))
	@touch $@

.venv/.stamp: .venv/.deps pyproject.toml
	@echo "== .venv: ostiary itself"
	@.venv/bin/python -m pip $(PIP) --no-deps --no-build-isolation --no-index --editable .
	@touch $@

# Compiled at first use: most of it is never used.
.venvs/%/.stamp: requirements/%.txt | .venv/.deps
	@echo "== .venvs/$*"
	@rm -rf .venvs/$* && $(PYTHON) -m venv --without-pip .venvs/$*
	@$(call installed,.venvs/$*,,--no-compile $(PIP_$*),-r $<)
	@touch $@

$(RIVALS): .venvs/%/.stamp: requirements/%.txt | .venv/.deps
	@echo "== .venvs/$*, a peer for one benchmark"
	@rm -rf .venvs/$* && $(PYTHON) -m venv --without-pip .venvs/$*
	@$(call installed,.venvs/$*,,--no-compile,-r $<) && touch $@ || \
	  { rm -rf .venvs/$*; echo 'no $*: its rows are not measured'; }

$(NODES): .venvs/%/.stamp: tests/foreign/%/package.json tests/foreign/%/package-lock.json
	@echo "== Node programs for the tests, $(@D)"
	@rm -rf $(@D) && mkdir -p $(@D) && cp $^ $(@D)
	@cd $(@D) && npm ci --silent --no-audit --no-fund --ignore-scripts && touch .stamp || \
	  echo 'no $*: the tests that need it are skipped'

# The one package in it says that it needs Python 3.14, and does not.
PIP_opa := --ignore-requires-python

# The same flags as tests/foreign/building.py.
$(OPA):
	@echo "== an OPA server for the tests, $@"
	@GOBIN=$(@D) GOFLAGS=-trimpath GOTOOLCHAIN=local CGO_ENABLED=0 nice go install -tags=opa_no_oci -gcflags=all=-l \
	  -ldflags='-s -w' github.com/open-policy-agent/opa@v$(OPA_VERSION) || echo 'no OPA server: its tests are skipped'
