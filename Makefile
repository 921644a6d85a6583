# lockstep: `make artifacts` builds, judges and publishes; `make check` is what CI runs. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
MODEL ?= fashion-cnn
PYTHON ?= python3.11
# A package index that offers CPU builds of torch, e.g. https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
BIN := .venv/bin
LOCK := configs/toolchains/main.txt
READY := .venv/.ready
PIP_OPTIONS := --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

TRIED := fashion-cnn/edge-x86-onnxruntime sensor-anomaly/edge-x86-openvino-fp32 voice-activity/edge-x86-openvino-fp32
POOLS := dataset-fashion-mnist $(foreach language,en es fr it ru,asterisk-core-sounds-$(language)-g722)

.PHONY: help artifacts report check test selftest pools browser lint types imports ui bench bench-long clean lock install

help:  ## list what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

artifacts: $(READY)  ## build, judge and publish MODEL (default fashion-cnn)
	@$(BIN)/lockstep artifacts $(MODEL)

report: $(READY)  ## write MODEL's dossier: may it be shipped, what differs, what changed
	@$(BIN)/lockstep report $(MODEL)

check: lint types imports test  ## lint, types, import rules, all tests: what CI runs

test: $(READY) browser  ## the tests alone
	$(BIN)/pytest

selftest: $(READY) pools  ## plant defects in the shipped models and count which the gate catches (docs/selftest.md)
	@code=0; for one in $(TRIED); do $(BIN)/lockstep selftest $${one%/*} $${one#*/} || code=$$?; echo; done; exit $$code

pools: $(READY)  # more data of the same kinds: Debian's packages, a file in river, and a decoder of G.722
	@dpkg -s $(POOLS) >/dev/null 2>&1 || { \
		[ "$$(id -u)" = 0 ] || { echo "data not found: sudo apt-get install $(POOLS)"; exit 1; }; \
		echo "installing $(POOLS)"; apt-get update -qq && apt-get install -y -qq --no-install-recommends $(POOLS) >/dev/null; }
	@$(BIN)/python -c 'import av' 2>/dev/null || $(BIN)/pip install $(PIP_OPTIONS) av==18.1.0
	@$(BIN)/pip show --quiet river 2>/dev/null || $(BIN)/pip install $(PIP_OPTIONS) --no-deps river==0.26.1

browser:  # the dossier's pages are opened in a real one
	@command -v chromium chromium-browser google-chrome >/dev/null || { \
		[ "$$(id -u)" = 0 ] || { echo "chromium not found: sudo apt-get install chromium fonts-dejavu"; exit 1; }; \
		echo "installing chromium"; apt-get update -qq && apt-get install -y -qq chromium fonts-dejavu >/dev/null; }

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

ui: $(READY)  ## the MLflow UI on the embedded registry, on http://127.0.0.1:5000
	@MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true $(BIN)/mlflow ui --host 127.0.0.1 --port 5000 \
		--backend-store-uri sqlite:///$(CURDIR)/.lockstep/registry/mlflow.db

bench: $(READY)  ## measure the speed and size bars side by side (docs/bench.md)
	$(BIN)/python -m bench
	$(BIN)/python -m bench.tuning

bench-long: $(READY)  ## judging beside five minutes of inference, and bounds over few groups by simulation (an hour)
	$(BIN)/python -m bench.long
	$(BIN)/python -m bench.groups

clean:  ## remove out/ and caches; the registry and .venv stay
	rm -rf out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

install: $(READY)  ## make .venv from the lock

$(READY): $(LOCK) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: apt-get install python3.11 python3.11-venv"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "installing python3.11-venv"; \
		apt-get update -qq && apt-get install -y -qq python3.11-venv; }
	@echo "installing into .venv from $(LOCK) (a few minutes, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install $(PIP_OPTIONS) -r $(LOCK)
	@$(BIN)/pip install $(PIP_OPTIONS) --no-deps --no-build-isolation -e .
	@touch $@

lock:  ## resolve pyproject.toml again into the lock (needs a while)
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install $(PIP_OPTIONS) torch==2.13.0 hatchling editables
	.venv-lock/bin/pip install $(PIP_OPTIONS) -e '.[build,dev,bench]'
	{ echo "# Exact versions of everything, transitive too. Made by \`make lock\`; do not edit."; \
	  .venv-lock/bin/pip freeze --exclude-editable | sed 's/^torch==.*/torch==2.13.0/'; } > $(LOCK)
	rm -rf .venv-lock
