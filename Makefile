# Each target sets up what it needs; a bare Debian 12 needs python3-venv, git and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.lock.sha256
CORES  ?= all

export PYTHONPATH := $(CURDIR)/workflow/scripts
export PYTHONDONTWRITEBYTECODE ?=

.PHONY: help env lock demo test acceptance lint bench slurm-test chaos determinism audit sbom docs docs-images clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP)  ## create .venv from requirements.lock (hash-checked)

# Two pure-Python packages (connection-pool, autograd-gamma) are published as source only.
$(STAMP): requirements.lock
	@if [ -f $(STAMP) ] && sha256sum --check --status $(STAMP); then touch $(STAMP); else \
	  echo "Setting up $(VENV) (about 2 minutes, once)"; \
	  rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	    --prefer-binary -r requirements.lock && \
	  echo "$(CURDIR)/workflow/scripts" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/corelab.pth" && \
	  sha256sum requirements.lock > $(STAMP); fi

lock:  ## compile pyproject.toml into requirements.lock (needs uv)
	uv pip compile --universal --generate-hashes --python-version 3.11 --quiet --no-header \
	  --no-emit-index-url pyproject.toml --output-file requirements.lock

demo: env  ## run the demo study: a simulated trial with known truth
	$(BIN)/snakemake --cores $(CORES)

test: env  ## unit, contract, dag, integration and short acceptance tests
	$(BIN)/python -m pytest -m "not slow"

acceptance: env  ## the longer tests on simulated truth and on real data; writes docs/real_data.md
	$(BIN)/python -m pytest -m "slow or acceptance"; code=$$?; \
	$(BIN)/python tests/real_data.py; exit $$code

lint: env  ## ruff, snakefmt, snakemake --lint, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	$(BIN)/mypy

bench: env  ## speed as ratios to a reference in the same run; coverage of intervals
	$(BIN)/python tests/bench/bench.py

slurm-test: env  ## the workflow through a real one-node Slurm on loopback (root; Debian packages)
	tests/cluster/slurm.sh up $(ACCOUNTING)
	$(BIN)/python tests/cluster/slurm_test.py $(SLURM_TEST); code=$$?; tests/cluster/slurm.sh down; exit $$code

chaos: env  ## random kills of runs and jobs, then the same manifest (KILLS=100 SEED=1)
	$(BIN)/python tests/chaos/chaos.py --kills $(or $(KILLS),100) --seed $(or $(SEED),1)

determinism: env  ## the same bytes under other Pythons (PYTHONS="python3.12 python3.13")
	$(BIN)/python tests/determinism/pythons.py $(or $(PYTHONS),python3.12)

audit: env  ## licences of the lock, and known vulnerabilities (STRICT=1: unreachable fails)
	$(BIN)/python tests/supply/licences.py
	$(BIN)/python tests/supply/vulnerabilities.py

sbom: env  ## software bill of materials of the environment, CycloneDX JSON
	mkdir -p build
	$(BIN)/cyclonedx-py environment --output-reproducible --of JSON -o build/sbom.cdx.json $(BIN)/python
	@echo build/sbom.cdx.json

docs: env  ## build the documentation site into site/ (no network)
	$(BIN)/mkdocs build --strict --quiet

docs-images: env  ## pictures of the demo's report for README and site (needs chromium)
	$(BIN)/python docs/make_images.py results/demo/report

clean:  ## remove caches, never results
	rm -rf .pytest_cache .ruff_cache .mypy_cache
