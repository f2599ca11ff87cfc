# Every target sets up what it needs by itself; `make` alone lists them.
PYTHON ?= python3
CONFIG ?= configs/embedded.yaml
ARGS ?=
# Where `make train` runs: local, torchrun or slurm; NODES and SBATCH (options) are for slurm.
LAUNCH ?= local
NODES ?= 1
SBATCH ?=

BIN := .venv/bin
READY := .venv/.ready
OPENFLAMINGO := .venv-openflamingo
NAME := $(basename $(notdir $(CONFIG)))
RUN := runs/$(NAME)
# The recipes on the embedded world prepare their data first and are scored on it afterwards.
EMBEDDED := $(filter embedded%,$(NAME))

FIT_local := $(BIN)/miniflamingo fit
FIT_torchrun := configs/cluster/torchrun.sh
FIT_slurm := sbatch $(SBATCH) $(if $(filter-out 1,$(NODES)),--nodes=$(NODES) \
	configs/cluster/slurm_many_nodes.sbatch,configs/cluster/slurm_one_node.sbatch)
FIT := $(or $(FIT_$(LAUNCH)),$(error LAUNCH=$(LAUNCH) is not local, torchrun or slurm))

# Threads that spin for long stall when another job is on the cores, those that never spin are slow.
export GOMP_SPINCOUNT = 3000
export TOKENIZERS_PARALLELISM = false

.DEFAULT_GOAL := help
.PHONY: help setup lint format types layers test data train smoke test-cluster embedded-clip bench \
	bench-openflamingo clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1|/' | column -t -s '|'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[embedded,dev]"
	@touch $@

setup: $(READY)  ## make .venv with everything in it

lint: $(READY)  ## check style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(READY)  ## mend style and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(READY)  ## check types
	$(BIN)/pyright

layers: $(READY)  ## check that imports point one way
	$(BIN)/lint-imports

test: lint types layers  ## lint, types, layers and the default test suite
	$(BIN)/pytest $(ARGS)

data: $(READY)  ## prepare the embedded models and data
	$(BIN)/python -m data_prep.embedded

train: $(if $(EMBEDDED),data,$(READY))  ## train CONFIG with ARGS by LAUNCH; score the embedded recipes few-shot
	$(FIT) --config $(CONFIG) $(ARGS)
ifneq ($(and $(EMBEDDED),$(filter-out slurm,$(LAUNCH))),)
	$(BIN)/miniflamingo fewshot --model $(RUN)/model --task embedded --shots 0,1,2,4,8 --baselines --out $(RUN)/fewshot
endif

smoke: $(READY)  ## the whole road in its short form
	$(BIN)/python -m data_prep.smoke
	$(BIN)/miniflamingo fit --config configs/smoke.yaml --overwrite $(ARGS)
	$(BIN)/miniflamingo fewshot --model runs/smoke/model --task smoke --shots 0,1,2 --baselines --out runs/smoke/fewshot
	$(BIN)/miniflamingo caption --model runs/smoke/model --shot runs/smoke/fewshot/curve.png "a curve." runs/smoke/fewshot/samples.png

test-cluster: $(READY)  ## preempt a job on a SLURM of this machine alone (docs/cluster.md)
	PYTHONPATH=tests $(BIN)/python -m cluster.preempt $(ARGS)

embedded-clip: $(READY)  ## train the shipped CLIP again
	$(BIN)/python -m data_prep.embedded.clip train

# open-flamingo pins torch 2.0.1: it is installed without its pins, in an environment of its own.
$(OPENFLAMINGO)/.ready: constraints.txt
	$(PYTHON) -m venv $(OPENFLAMINGO)
	$(OPENFLAMINGO)/bin/python -m pip install --disable-pip-version-check -c constraints.txt \
		torch torchvision transformers open_clip_torch einops einops-exts
	$(OPENFLAMINGO)/bin/python -m pip install --disable-pip-version-check --no-deps open-flamingo==2.0.1
	@touch $@

bench: $(READY)  ## time training, generation and loading
	$(BIN)/python -m benchmarks.compare $(ARGS)
	$(BIN)/python -m benchmarks.choices
	$(BIN)/python -m benchmarks.fewshot
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.loading

bench-openflamingo: $(READY) $(OPENFLAMINGO)/.ready  ## the same beside OpenFlamingo 2.0.1
	$(BIN)/python -m benchmarks.compare --openflamingo $(OPENFLAMINGO)/bin/python \
		--out benchmarks/results/openflamingo.json $(ARGS)
	$(BIN)/python -m benchmarks.vqa --openflamingo $(OPENFLAMINGO)/bin/python

clean:  ## remove caches and the smoke run; .venv, data and runs stay
	rm -rf build dist .pytest_cache .ruff_cache .import_linter_cache data/smoke runs/smoke
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
