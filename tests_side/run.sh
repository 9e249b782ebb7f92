#!/usr/bin/env bash
# Tests that need pinned packages of their own: tests_side/run.sh torchforce|openmm_ml|openmm_cuda|mace
# Makes .venv-<name>, installs tests_side/<name>/requirements.txt, builds nearsight there, and runs the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1
venv=.venv-${name//_/-}

test -x "$venv/bin/python" || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install --quiet --requirement "tests_side/$name/requirements.txt"
# The LAMMPS plugin has no part in the tests of OpenMM. A build folder of its own keeps the paths of other environments out.
lammps=OFF
test "$name" != mace || lammps=ON
"$venv/bin/pip" install --quiet --no-build-isolation --config-settings "build-dir=build/$name" \
  --config-settings "cmake.define.NEARSIGHT_LAMMPS=$lammps" .
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$venv/bin/python" -m pytest "tests_side/$name" "${@:2}"
