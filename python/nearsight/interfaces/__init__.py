"""The doors to other programs: plain Python, ASE, OpenMM, openmm-ml, LAMMPS. Each is imported when used."""
