# make install    a virtual environment with everything, once
# make demo       builds the profiles, serves them and writes out/demo.json
# make study      concepts, shift and steering in depth; writes out/study/run/report.html
# make test       the tests
# make conformance  500 random batches against each request alone; writes docs/conformance.md
# make reliability  what an operator relies on, tried until it breaks; writes out/reliability.json (see docs/reliability.md)
# make models     compares fifty architectures with transformers, in ten minutes; writes docs/models.md
# make smoke      the few tests that show most of it, in a few minutes
# make compat     those few on the oldest vLLM that trimtab serves with, in .venv-oldest
# make bench      what steering costs beside plain vLLM, in five minutes (see bench/README.md)
# make serve      the demo's model and profiles on PORT
# make lint       style, types, import rules, Dockerfile

PYTHON ?= python3
PORT ?= 8000
# The vLLM to install: gpu where a driver answers, else cpu. Override with BACKEND=cpu or BACKEND=gpu.
ifndef BACKEND
BACKEND := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
endif

BIN := .venv/bin
INSTALLED := .venv/.installed-$(BACKEND)
UV_TORCH := $(if $(filter cpu,$(BACKEND)),--torch-backend cpu)

# The install leaves byte code to Python, which has to be allowed to write it: vLLM is imported in 13 s with it and in 37
# without.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo study test conformance reliability models smoke compat bench serve lint

install: $(INSTALLED)

# One call, so that vLLM's pin decides which torch is installed. uv reads no configuration of pip's and takes the CPU build
# of torch from PyTorch's own index; where it cannot, pip may: today's, since the one that Python 3.11 brings takes a minute
# longer. pip would spend most of its time on byte code, which Python writes anyway when it is needed. The build leaves
# trimtab.egg-info behind: its entry points would hide those of a later install from every Python that runs in this folder.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv --upgrade-deps .venv
	@{ command -v uv >/dev/null && set -x \
	    && uv pip install --python $(BIN)/python $(UV_TORCH) -e '.[$(BACKEND),dev]'; } \
	|| { set -x; $(BIN)/python -m pip install --no-compile -e '.[$(BACKEND),dev]'; }
	@rm -rf trimtab.egg-info
	@rm -f .venv/.installed-*
	@touch $@

demo: install
	$(BIN)/python -m examples.tinyworld.demo --out out

STUDY := out/study
MODEL := examples/tinyworld/model

# The configurations name out/study. Answers to VQA questions and words of captions are looked at alike: 20 concepts, and
# how good other numbers would be.
study: install
	$(BIN)/python -m examples.tinyworld.study.prepare --out $(STUDY)
	$(BIN)/trimtab tune examples/tinyworld/study/*.yaml --run $(STUDY)/run
	$(BIN)/python -m examples.tinyworld.study --out $(STUDY)
	$(BIN)/python -m examples.tinyworld.shifts --out $(STUDY)/run
	@set -e; for kind in answers-last-prompt captions-predicts; do \
	    data=$${kind%%-*}; states=$(STUDY)/run/states/model-$$kind; found=$(STUDY)/run/dictionaries/$$data; \
	    $(BIN)/trimtab dictionary $$states -l 5 -k 20 --out $$found --force; \
	    $(BIN)/trimtab choose-k $$states -l 5 -k 5 -k 10 -k 20 -k 40 --model $(MODEL) --findings $(STUDY)/run; \
	    $(BIN)/trimtab ground $$states $$found --model $(MODEL) --data $(STUDY)/data/$$data/train.jsonl --findings $(STUDY)/run; \
	done
	$(BIN)/trimtab report $(STUDY)/run

# Two tests at a time: an engine of the tests keeps one core busy. Each takes up to 3 GiB.
WORKERS ?= 2
PARALLEL = -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

test: install
	$(BIN)/python -m pytest $(PARALLEL)

conformance: install
	$(BIN)/python -m tests.conformance.run

# It goes on where it was ended, and runs again only what has changed since. PART="fuzz doors" runs some parts alone.
PART ?=

reliability: install
	$(BIN)/python -m tests.reliability.run $(foreach name,$(PART),--part $(name))

# COMPILED: which architectures are compared compiled as well: sample (one for each form of a layer), all or none.
COMPILED ?= sample

models: install
	$(BIN)/python -m tests.architectures.run --compiled $(COMPILED)

smoke: install
	$(BIN)/python -m pytest $(PARALLEL) -m smoke

compat: .venv-oldest/.installed
	@.venv-oldest/bin/python -m pytest $(PARALLEL) -m smoke \
	    && echo 'compat: passed with $(OLDEST)' || { echo 'compat: failed with $(OLDEST)'; exit 1; }

OLDEST := $(shell grep ^vllm tests/oldest.txt)

.venv-oldest/.installed: pyproject.toml tests/oldest.txt
	$(PYTHON) -m venv --clear --upgrade-deps .venv-oldest
	.venv-oldest/bin/python -m pip install --no-compile --constraint tests/oldest.txt -e '.[cpu,dev]'
	@rm -rf trimtab.egg-info
	@touch $@

bench: install
	$(BIN)/python bench/host.py
	$(BIN)/python bench/serving.py --quick --json out/bench.json --plot out/bench.png

# vLLM's CPU build would take most of the memory for its KV cache; this model needs next to nothing. It is served in
# float32 where the processor emulates bfloat16.
serve: export VLLM_CPU_KVCACHE_SPACE ?= 1
serve: install out/profiles
	$(BIN)/trimtab-serve examples/tinyworld/model --steering-profiles out/profiles --port $(PORT) \
	    --served-model-name tinyworld --max-model-len 1024 --dtype $$($(BIN)/python -m examples.tinyworld.precision)

out/profiles: | install
	$(BIN)/python -m examples.tinyworld.demo --out out --build-only

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint Dockerfile
