# Needs Python >= 3.10, a Rust toolchain >= 1.94 and a C compiler. Everything else comes from here, into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core
SOURCES := $(shell find src -type f) Cargo.toml Cargo.lock pyproject.toml

.PHONY: demo test test-rust test-python lint bench conformance integrations soak clean

demo: $(VENV)/.demo ## the main job: two bills side by side, from real models
	$(BIN)/farthing demo

test: lint test-rust test-python ## everything that CI runs

test-rust: $(VENV)/.dev
	cargo test --quiet

# Twice: as users run it, and with every call going the SDK's way (what is not plain goes that way in any case). What is
# built is compared with what the SDK builds in thousands of cases, which share two processes.
COMPARED := tests/python/test_build.py
test-python: $(CORE)
	$(BIN)/python -m pytest --ignore $(COMPARED)
	$(BIN)/python -m pytest -n 2 $(COMPARED)
	FARTHING_L2=off $(BIN)/python -m pytest -m "not once" --ignore $(COMPARED)

lint: $(CORE)
	cargo fmt --check
	cargo clippy --quiet --all-targets -- --deny warnings
	cargo clippy --quiet --features python -- --deny warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest farthing._core

# One cache file under kills, forks and full disks: 10 minutes, SECONDS=30 for a quick one.
soak: $(CORE)
	$(BIN)/python tests/soak.py

# farthing beside the plain SDK, in one run: `make bench ARGS="misses --scale 0.2"` for a part of it, and quicker.
bench: $(VENV)/.demo
	cargo build --quiet --release --example loopback
	$(BIN)/maturin build --quiet --release --out target/wheels
	$(BIN)/python benches/bench.py $(ARGS)

# The OpenAI SDK's own tests against farthing's classes; in an environment of its own, because they need much.
CONFORMANCE := ../shared/conformance/run
conformance: $(CORE)
	@test -x $(CONFORMANCE) || { echo "skipped: $(CONFORMANCE) is not beside this clone"; exit 0; }; \
	$(PYTHON) -m venv $(VENV)/conformance && \
	$(VENV)/conformance/bin/python -m pip install --quiet . && \
	INSTALL=1 MODULE=farthing PYTHON=$(CURDIR)/$(VENV)/conformance/bin/python $(CONFORMANCE) core

# Other people's libraries on top of farthing, in environments of their own; GROUPS="evals" for some of them.
integrations: $(CORE)
	$(BIN)/maturin build --quiet --interpreter $(BIN)/python --out target/wheels/debug
	$(BIN)/python scripts/integrations.py target/wheels/debug/farthing-*.whl $(GROUPS)

# A release build is what users run; tests take the quicker one.
$(VENV)/.demo: $(VENV)/.dev $(SOURCES)
	$(BIN)/maturin develop --quiet --release --extras local
	touch $@
	rm -f $(CORE)

$(CORE): $(VENV)/.dev $(SOURCES)
	$(BIN)/maturin develop --quiet --extras local
	touch $@
	rm -f $(VENV)/.demo

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

clean:
	rm -rf $(VENV) target
