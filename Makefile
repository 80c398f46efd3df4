# OpenClaw Cloud on one machine: `make run` starts everything, `make test` proves it.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run stop status reset openclaw compile test test-all test-compiled test-openclaw check bench-proxy

VENV := .venv
PYTHON := $(VENV)/bin/python
RUN_STAMP := $(VENV)/.run-installed
DEV_STAMP := $(VENV)/.dev-installed
COMPILE_STAMP := $(VENV)/.compile-installed
MIN_FREE_KB := 2097152

# The first supported interpreter: PYTHON3 if given, else python3.11 to 3.13, else python3.
FIND_PYTHON = for one in $(PYTHON3) python3.11 python3.12 python3.13 python3; do \
	  if command -v $$one >/dev/null 2>&1 && \
	    $$one -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	  then echo $$one; break; fi; done

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

run: $(RUN_STAMP) ## start everything on http://localhost:3000 (another port: PORT=3100 make run)
	@exec $(PYTHON) -m openclaw_web up

stop: ## end the running stack, from any terminal
	@test -x $(PYTHON) || { echo "Nothing runs: nothing is installed yet."; exit 0; }; exec $(PYTHON) -m openclaw_web stop

status: ## tell how the stack is
	@test -x $(PYTHON) || { echo "Nothing runs: nothing is installed yet."; exit 3; }; exec $(PYTHON) -m openclaw_web status

reset: ## forget the stack's data (asks first)
	@test -x $(PYTHON) || { echo "There is nothing to forget."; exit 0; }; exec $(PYTHON) -m openclaw_web reset $(if $(YES),--yes)

openclaw: $(RUN_STAMP) ## have new boxes run the real OpenClaw: 1 GB to install (back: REMOVE=1 make openclaw)
	@exec $(PYTHON) -m openclaw_web openclaw $(if $(REMOVE),remove,install)

compile: $(COMPILE_STAMP) ## make machine code of the token proxy: a quarter less CPU (needs a C compiler; never needed)
	@exec $(PYTHON) -m openclaw_web compile

test: $(DEV_STAMP) ## prove it: unit, contract and flow tests, then a browser against the full stack
	@$(PYTHON) -m tests.browser_setup
	@$(PYTHON) -m pytest -n 3 -m "not browser and not slow"
	@$(PYTHON) -m pytest -m "browser and not slow"

test-all: $(DEV_STAMP) ## the same with the slow tests
	@$(PYTHON) -m tests.browser_setup
	@$(PYTHON) -m pytest -n 3 -m "not browser"
	@$(PYTHON) -m pytest -m browser

test-compiled: compile $(DEV_STAMP) ## prove the token proxy and the meter once more, as machine code
	@OPENCLAW_CLOUD_COMPILED=required $(PYTHON) -m pytest -n 3 -m "not browser and not slow" \
	  tests/core/test_compiled.py tests/gateway tests/metering tests/contracts/test_openai_clients.py tests/contracts/test_anthropic_clients.py tests/contracts/test_agent_turns.py

test-openclaw: $(DEV_STAMP) ## prove that a box works with the real OpenClaw (make openclaw first; needs 1.5 GB of memory)
	@OPENCLAW_FOLDER=$$($(PYTHON) -m openclaw_web openclaw where) $(PYTHON) -m pytest -m openclaw tests/openclaw

check: $(DEV_STAMP) ## format, lint, import contracts, types, schema
	@failed=0; \
	for one in "ruff format --check" "ruff check" "lint-imports" "ty check" "python -m openclaw_web check-schema"; do \
	  echo "== $$one"; $(VENV)/bin/$$one || failed=1; done; exit $$failed

bench-proxy: $(RUN_STAMP) ## measure the token proxy beside nginx (more: BENCH_TARGETS="litellm portkey", BENCH_ARGS="--rounds 5")
	@$(PYTHON) -m bench.proxy $(BENCH_ARGS) $(BENCH_TARGETS)

$(PYTHON):
	@free=$$(df -Pk . | awk 'NR == 2 {print $$4}'); if [ "$$free" -lt $(MIN_FREE_KB) ]; then \
	  echo "Only $$((free / 1024)) MB are free here, and 2 GB are needed; make room and run this again." >&2; exit 1; fi
	@python=$$($(FIND_PYTHON)); if [ -z "$$python" ]; then \
	  echo "OpenClaw Cloud needs Python 3.11, 3.12 or 3.13 with its venv module; install one (Debian: apt install python3-venv), or name it: PYTHON3=/path/to/python3.12 make run" >&2; exit 1; fi; \
	echo "Making $(VENV) with $$($$python --version)"; $$python -m venv $(VENV)

$(RUN_STAMP): requirements.txt | $(PYTHON)
	@$(call install,requirements.txt)

$(DEV_STAMP): requirements-dev.txt requirements-compile.txt requirements.txt | $(PYTHON)
	@$(call install,requirements-dev.txt)
	@touch $(RUN_STAMP) $(COMPILE_STAMP)

$(COMPILE_STAMP): requirements-compile.txt requirements.txt | $(PYTHON)
	@$(call install,requirements-compile.txt)
	@touch $(RUN_STAMP)

# Quiet when it works; when it does not, pip's own words and one sentence with the cure.
define install
echo "Installing $(1) (the first time takes about a minute)"; \
$(PYTHON) -m pip install -qq --disable-pip-version-check -r $(1) || { \
  echo "The packages of $(1) could not be installed: pip says why above. Without network connect first, or point pip to a mirror (PIP_INDEX_URL); then run this again." >&2; exit 1; }; \
touch $@
endef
