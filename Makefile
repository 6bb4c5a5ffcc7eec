# Each target sets up what it needs; a bare Debian 12 needs python3-venv, git and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.lock.sha256
DEV    := $(VENV)/.dev-lock.sha256
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
          --prefer-binary
CORES  ?= all
WORKERS ?= 2
COMPILE := uv pip compile --universal --generate-hashes --python-version 3.11 --quiet --no-header \
           --no-emit-index-url

export PYTHONPATH := $(CURDIR)/workflow/scripts
# A job that may not keep bytecode compiles the library each time it starts.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help env dev lock demo test acceptance lint bench slurm-test chaos determinism audit sbom docs docs-site docs-images clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP)  ## create .venv from requirements.lock (hash-checked): what a study needs

dev: $(DEV)  ## the same and what tests and lint need (requirements-dev.lock)

# Two pure-Python packages (connection-pool, autograd-gamma) are published as source only.
$(STAMP): requirements.lock
	@if [ -f $(STAMP) ] && sha256sum --check --status $(STAMP); then touch $(STAMP); else \
	  echo "Setting up $(VENV) (about 2 minutes, once)"; \
	  rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) && $(PIP) -r requirements.lock && \
	  echo "$(CURDIR)/workflow/scripts" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/corelab.pth" && \
	  $(BIN)/python -m corelab.workflow.compile_loops && \
	  sha256sum requirements.lock > $(STAMP); fi

$(DEV): requirements-dev.lock $(STAMP)
	@if [ -f $(DEV) ] && sha256sum --check --status $(DEV); then touch $(DEV); else \
	  echo "Adding what tests and lint need" && $(PIP) -r requirements-dev.lock && \
	  sha256sum requirements-dev.lock > $(DEV); fi

lock:  ## compile pyproject.toml into the two locks (needs uv)
	$(COMPILE) pyproject.toml --output-file requirements.lock
	$(COMPILE) --group dev -c requirements.lock pyproject.toml --output-file requirements-dev.lock

demo: env  ## run the demo study: a simulated trial with known truth
	$(BIN)/snakemake --cores $(CORES)

test: dev  ## unit, contract, dag, integration and short acceptance tests
	$(BIN)/python -m pytest -m "not slow" --numprocesses $(WORKERS) --dist loadfile \
	  --no-loadscope-reorder

acceptance: dev  ## the longer tests on simulated truth and on real data; writes docs/real_data.md
	$(BIN)/python -m pytest -m "slow or acceptance"; code=$$?; \
	$(BIN)/python tests/real_data.py; exit $$code

lint: dev  ## ruff, snakefmt, snakemake --lint, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/python tests/lint_rules.py
	$(BIN)/mypy

bench: dev  ## speed as ratios to a reference in the same run; coverage of intervals
	$(BIN)/python tests/bench/bench.py

slurm-test: dev  ## the workflow through a real one-node Slurm on loopback (root; Debian packages)
	tests/cluster/slurm.sh up $(ACCOUNTING)
	$(BIN)/python tests/cluster/slurm_test.py $(SLURM_TEST); code=$$?; tests/cluster/slurm.sh down; exit $$code

chaos: dev  ## random kills of runs and jobs, then the same manifest (KILLS=100 SEED=1)
	$(BIN)/python tests/chaos/chaos.py --kills $(or $(KILLS),100) --seed $(or $(SEED),1)

determinism: dev  ## the same bytes under other Pythons (PYTHONS="python3.12 python3.13")
	$(BIN)/python tests/determinism/pythons.py $(or $(PYTHONS),python3.12)

audit: dev  ## licences of the lock, and known vulnerabilities (STRICT=1: unreachable fails)
	$(BIN)/python tests/supply/licences.py
	$(BIN)/python tests/supply/vulnerabilities.py

sbom: dev  ## software bill of materials of the environment, CycloneDX JSON
	mkdir -p build
	$(BIN)/python tests/supply/sbom.py build/sbom.cdx.json
	@echo build/sbom.cdx.json

docs: dev  ## build the documentation site into site/ (no network), with the demo's report if it was made
	$(BIN)/mkdocs build --strict --quiet

docs-site: demo docs  ## run the demo, then build the site with its report

docs-images: dev  ## pictures of the demo's report for README and site (needs chromium)
	$(BIN)/python docs/make_images.py results/demo/report

clean:  ## remove caches, never results
	rm -rf .pytest_cache .ruff_cache .mypy_cache
