# Needs Python >= 3.10, a Rust toolchain >= 1.94 and a C compiler. Everything else comes from here, into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core
WHEELS := target/wheels-test
WHEEL := $(VENV)/.wheel
SOURCES := $(shell find src -type f) Cargo.toml Cargo.lock pyproject.toml

.PHONY: demo test test-rust test-python lint bench conformance integrations versions watchers wheel licences soak clean

demo: $(VENV)/.demo ## the main job: two bills side by side, from real models
	$(BIN)/farthing demo

test: lint test-rust test-python ## everything that CI runs

test-rust: $(VENV)/.dev
	cargo test --quiet

# Twice: as users run it, and with every call going the SDK's way (what is not plain goes that way in any case). What is
# built is compared with what the SDK builds in thousands of cases. Most tests wait for a server, a timer or a process of
# theirs: three share two cores. Comparing is work for as many as there are cores.
COMPARED := tests/python/test_build.py
test-python: $(CORE)
	$(BIN)/python -m pytest -n 3 --ignore $(COMPARED)
	$(BIN)/python -m pytest -n 2 $(COMPARED)
	FARTHING_L2=off $(BIN)/python -m pytest -n 3 -m "not once" --ignore $(COMPARED)

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

# The OpenAI SDK's own tests against farthing's classes; in an environment of its own, because they need much. The kit is
# not part of the repository. ARGS="--set full" takes all tests, which is long.
CONFORMANCE ?= ../shared/conformance
conformance: $(WHEEL)
	$(BIN)/python scripts/conformance.py $(CONFORMANCE) $(WHEELS)/*.whl $(ARGS)

# Other versions of openai and of Python; ARGS=--quick for what CI runs.
versions: $(WHEEL)
	$(BIN)/python scripts/versions.py $(WHEELS)/*.whl $(ARGS)

# What is published: it runs on systems as old as the name of the wheel says, wherever it was built. The C compiler and
# linker for that come from PyPI.
wheel: $(VENV)/.publish
	rm -rf dist
	PATH=$(CURDIR)/$(VENV)/publish/bin:$$PATH maturin build --release --locked --zig --compatibility manylinux_2_28 --out dist
	$(VENV)/publish/bin/auditwheel show dist/*.whl
	$(PYTHON) scripts/check_wheel.py dist/*.whl

# THIRD-PARTY.md says what is linked, and under which licences; one that about.toml does not accept is an error. Needs
# cargo-about: cargo install cargo-about --locked --features cli
licences:
	cargo fetch --locked
	cargo about generate --locked --offline --features python --fail about.hbs --output-file THIRD-PARTY.md

# Tracers of the SDK, in an environment of their own, because they need much.
watchers: $(CORE)
	$(PYTHON) -m venv $(VENV)/watchers
	$(VENV)/watchers/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VENV)/watchers/bin/python -m pip install --quiet --group watchers
	PYTHONPATH=python $(VENV)/watchers/bin/python -m pytest tests/python/test_watchers.py

# Other people's libraries on top of farthing, in environments of their own; GROUPS="evals" for some of them.
integrations: $(WHEEL)
	$(BIN)/python scripts/integrations.py $(WHEELS)/*.whl $(GROUPS)

# A release build is what users run; tests take the quicker one.
$(VENV)/.demo: $(VENV)/.dev $(SOURCES)
	$(BIN)/maturin develop --quiet --release --extras local
	touch $@
	rm -f $(CORE)

$(CORE): $(VENV)/.dev $(SOURCES)
	$(BIN)/maturin develop --quiet --extras local
	touch $@
	rm -f $(VENV)/.demo

# The quicker build as a wheel, for environments of their own.
$(WHEEL): $(CORE)
	rm -rf $(WHEELS)
	$(BIN)/maturin build --quiet --out $(WHEELS)
	touch $@

$(VENV)/.publish: pyproject.toml
	$(PYTHON) -m venv $(VENV)/publish
	$(VENV)/publish/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VENV)/publish/bin/python -m pip install --quiet --group wheel
	touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

clean:
	rm -rf $(VENV) target
