// Between OpenMM's arrays, in its order of atoms, and those of the particles that the model sees, in theirs;
// in the words of OpenMM's runtime compiler. numbers[particle] is the model's number of a particle, or -1.

/// OpenMM's nm -> Å.
KERNEL void readPositions(GLOBAL const real4* RESTRICT posq,
#ifdef USE_MIXED_PRECISION
                          GLOBAL const real4* RESTRICT posqCorrection,
#endif
                          GLOBAL const int* RESTRICT atomIndex, GLOBAL const int* RESTRICT numbers,
                          int numAtoms, double angstromPerNm, GLOBAL double* RESTRICT positions) {
  for (int i = GLOBAL_ID; i < numAtoms; i += GLOBAL_SIZE) {
    const int k = numbers[atomIndex[i]];
    if (k < 0) continue;
    double x = posq[i].x, y = posq[i].y, z = posq[i].z;
#ifdef USE_MIXED_PRECISION
    x += posqCorrection[i].x;
    y += posqCorrection[i].y;
    z += posqCorrection[i].z;
#endif
    positions[3 * k] = angstromPerNm * x;
    positions[3 * k + 1] = angstromPerNm * y;
    positions[3 * k + 2] = angstromPerNm * z;
  }
}

/// eV/Å -> OpenMM's kJ/(mol nm) in units of 2^-32. Other streams may add to the same numbers meanwhile.
KERNEL void addForces(GLOBAL const double* RESTRICT forces, GLOBAL const int* RESTRICT atomIndex,
                      GLOBAL const int* RESTRICT numbers, int numAtoms, int paddedNumAtoms, double unit,
                      GLOBAL mm_ulong* RESTRICT buffer) {
  for (int i = GLOBAL_ID; i < numAtoms; i += GLOBAL_SIZE) {
    const int k = numbers[atomIndex[i]];
    for (int d = 0; k >= 0 && d < 3; ++d)
      ATOMIC_ADD(&buffer[i + d * paddedNumAtoms],
                 (mm_ulong)(mm_long)(unit * 4294967296.0 * forces[3 * k + d]));
  }
}
