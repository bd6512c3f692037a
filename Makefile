# make demo | make live | make test | make check: each makes .venv when it is missing, with the versions of requirements/tested.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements/tested.txt
OLDEST := $(CURDIR)/$(VENV)/oldest
# Tests that run stock models, and those that read videos: all that lean on other people's inner workings.
MODEL_TESTS := tests/plug tests/models tests/video $(wildcard tests/test_*engine*.py)
# Of these, what an older transformers cannot change: which settings have an effect, threads, videos.
OLDEST_TESTS := $(filter-out tests/video,$(MODEL_TESTS)) --ignore tests/plug/test_settings.py --ignore tests/plug/test_threads.py
# Three processes with one thread each: on two cores a third one computes while others wait for actors and servers, and torch
# gains little from a second thread on models as small as these.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile

# vLLM has an environment of its own, with the versions of torch and transformers that it asks for.
VLLM := $(CURDIR)/$(VENV)/vllm
VLLM_LOCK := requirements/vllm.txt

.PHONY: demo live test test-newest test-oldest vllm test-vllm check format tables chaos clean

$(STAMP): pyproject.toml $(LOCK)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c $(LOCK)
	$(BIN)/python -m pip install --quiet -c $(LOCK) --build-constraint $(LOCK) -e '.[dev]'
	touch $(STAMP)

# Laid over .venv by PYTHONPATH: torch is there once.
$(OLDEST)/.installed: requirements/oldest.txt $(STAMP)
	rm -rf $(OLDEST)
	$(BIN)/python -m pip install --quiet --no-deps --target $(OLDEST) -r requirements/oldest.txt
	touch $@

demo: $(STAMP)
	$(BIN)/videoprune demo

# The page on a generated stream; Ctrl-C ends it.
live: $(STAMP)
	$(BIN)/videoprune serve --model llava-demo --demo

test: $(STAMP)
	$(PYTEST)

test-newest: $(STAMP)
	$(PYTEST) $(MODEL_TESTS)

test-oldest: $(OLDEST)/.installed
	PYTHONPATH=$(OLDEST) $(BIN)/python -c 'import transformers; print("transformers", transformers.__version__)'
	PYTHONPATH=$(OLDEST) $(PYTEST) $(OLDEST_TESTS)

$(VLLM)/.installed: pyproject.toml $(VLLM_LOCK)
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --upgrade pip
	$(VLLM)/bin/python -m pip install --quiet -r $(VLLM_LOCK) -e .
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec  # builds for CUDA, which vLLM does not need
	touch $@

# On a CPU: vLLM's build for it, 3.5 GB.
vllm: $(VLLM)/.installed

test-vllm: $(VLLM)/.installed
	OMP_NUM_THREADS=1 PYTHONPATH=tests_vllm/site $(VLLM)/bin/python -m pytest tests_vllm

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tables: $(STAMP)
	$(BIN)/videoprune tables --out docs
	$(BIN)/videoprune tables --out docs --seed 2 --limit 300 --model llava-demo,qwen-demo
	$(BIN)/videoprune tables --out docs --seed 2 --limit 300 --model demo --only fusion
	$(BIN)/videoprune tables --out docs --split hard --seed 2 --limit 300 --model demo --only fusion

# Kills parts of a run on two Ray nodes, a hundred times, and counts rows: some 20 minutes.
chaos: $(STAMP)
	$(BIN)/python -m tests.chaos --kills 100

clean:
	rm -rf $(VENV) runs
