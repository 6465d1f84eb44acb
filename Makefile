# make demo   export, serve and rank the example catalogue     make test    all tests
# make serve  leave the server running                         make check   ruff, mypy, committed files current
# make bench  speed and memory against the targets       make loadtest two minutes of Locust, with limits
# make docs   the documentation as a web site in site/     make chaos   what breaks for minutes, survived
# make containers  docker-compose.yml in a Docker engine, with stand-ins for what cannot be pulled; as root
# make clients the environment of the tests with the clients of others (`make test` makes and runs it too)
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXPORTED := model_repository/.exported
PIP := $(BIN)/pip install -qq --disable-pip-version-check --constraint constraints.txt

# The clients and frameworks of others have an environment of their own: what they ask for would replace what servers run on.
CLIENTS := .clients
CLIENTS_INSTALLED := $(CLIENTS)/.installed
CLIENTS_PIP := $(CLIENTS)/bin/pip install -qq --disable-pip-version-check --no-deps --no-compile

# Where NVIDIA's driver shows a GPU, it is used; `make demo GPU=` leaves it alone.
GPU ?= $(wildcard /dev/nvidiactl)

# torch's idle threads spin otherwise, and take the cores from Triton's.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: bench chaos check clean clients containers demo docs export loadtest serve setup test tools

demo: $(EXPORTED)
	$(BIN)/python examples/demo.py

serve: $(EXPORTED)
	$(BIN)/lychee load

test: $(EXPORTED) tools clients
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "" --numprocesses auto --dist loadfile --no-loadscope-reorder --durations 25
	$(CLIENTS)/bin/pytest --config-file tests/clients/pytest.ini --durations 10 tests/clients

chaos: $(EXPORTED)
	LYCHEE_CHAOS=1 $(BIN)/pytest -m "" --durations 0 --timeout 3600 tests/chaos
	$(MAKE) containers

# Starts an engine where none runs, and leaves nothing behind. LYCHEE_CONTAINERS_DATA=FOLDER keeps what was built.
containers: $(INSTALLED) tools
	deploy/containers/packages.sh
	LYCHEE_CONTAINERS=1 $(BIN)/pytest -m "" --durations 10 --timeout 3600 tests/containers

check: $(EXPORTED) tools docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy client/lychee_client evaluate/lychee_evaluate export/lychee_export server/lychee_server
	MYPYPATH=server/lychee_server/execution $(BIN)/mypy server/backends/onnxruntime/model.py
	$(BIN)/mypy bulk/lychee_bulk loadtest/lychee_loadtest examples
	$(BIN)/pytest --quiet tests/contract tests/unit/test_docs.py

# The variable silences a notice of the theme: it gets fixes until 2027-05-05, and then wants a successor.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(EXPORTED)
	$(BIN)/python -m lychee_loadtest.speed.bench

loadtest: $(EXPORTED)
	$(BIN)/python -m lychee_loadtest.locust.smoke

setup: $(INSTALLED)

# Chromium, Redis' tools and what else the tests run; see the script.
tools: $(INSTALLED)
	deploy/test-tools.sh $(BIN)/python

clients: $(CLIENTS_INSTALLED)

export: $(EXPORTED)

# torch goes first and alone: a range that another package asks for would replace the pinned build.
$(INSTALLED): constraints.txt deploy/release/version.py $(addsuffix /pyproject.toml,bulk client evaluate export loadtest server)
	deploy/debian-packages.sh $(PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation --editable client[cli,heic] --editable evaluate[cli,xlsx] --editable export[peft] \
		--editable server[triton,web,redis,otel] --editable loadtest[locust] --editable bulk
ifneq ($(GPU),)
# Both builds of ONNX Runtime fill the folder onnxruntime/: the one for CPUs, which the exporter asks for, goes first.
	$(BIN)/pip uninstall -qq --yes onnxruntime-openvino
	$(PIP) --no-build-isolation --editable server[gpu]
endif
	$(PIP) --requirement tests/requirements.txt --requirement docs/requirements.txt
	touch $@

$(CLIENTS_INSTALLED): $(wildcard tests/clients/*.txt) client/pyproject.toml | $(INSTALLED)
	test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS_PIP) --requirement tests/clients/requirements.txt
	$(CLIENTS_PIP) --upgrade --target $(CLIENTS)/other --requirement tests/clients/other_versions.txt
	$(CLIENTS_PIP) --no-build-isolation --editable client
	touch $@

$(EXPORTED): $(INSTALLED) $(shell find export/lychee_export -name '*.py' -o -name '*.safetensors')
	$(BIN)/lychee export lychee-mini
	touch $@

clean:
	rm -rf $(VENV) $(CLIENTS) $(EXPORTED) model_repository/*/[0-9]* model_repository/client_assets/previous site
