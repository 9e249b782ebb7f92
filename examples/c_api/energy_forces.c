/* Energy (eV) and forces (eV/A) of the first frame of an extended XYZ file, through the C API of nearsight.
 *   nearsight-energy-forces model.pt frame.xyz [mixed|double] [cpu|cuda]
 * The comment line may hold Lattice="ax ay az bx by bz cx cy cz", periodic unless pbc="..." says otherwise,
 * and end its Properties with molecules:I:1: a number from 0 behind each position, of molecules that stay
 * neutral.
 */
#include <nearsight.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int ok, const char* message) {
  if (ok) return;
  fprintf(stderr, "%s\n", message);
  exit(1);
}

static void must(ns_status status) {
  check(status == NS_OK, ns_last_error());
}

int main(int argc, char** argv) {
  check(argc >= 3, "usage: nearsight-energy-forces model.pt frame.xyz [mixed|double] [cpu|cuda]");
  ns_model* model = NULL;
  must(ns_model_load(argv[1], NS_BACKEND_AUTO, &model));

  /* the frame */
  FILE* file = fopen(argv[2], "r");
  char line[4096], symbol[8], pbc[3] = {'T', 'T', 'T'};
  check(file && fgets(line, sizeof line, file), "the XYZ file cannot be read");
  const int n = atoi(line);
  check(n > 0 && fgets(line, sizeof line, file),
        "the XYZ file must begin with the number of atoms and a comment");
  double h[9];
  const char *lattice = strstr(line, "Lattice=\""), *directions = strstr(line, "pbc=\"");
  const int cell = lattice && sscanf(lattice, "Lattice=\"%lf%lf%lf%lf%lf%lf%lf%lf%lf", h, h + 1, h + 2, h + 3,
                                     h + 4, h + 5, h + 6, h + 7, h + 8) == 9;
  if (directions) sscanf(directions, "pbc=\"%c %c %c", pbc, pbc + 1, pbc + 2);
  const int has_molecules = strstr(line, ":molecules:I:1") != NULL;
  int *species = malloc(n * sizeof *species), *molecules = calloc(n, sizeof *molecules), num_molecules = 0;
  double *x = malloc(3 * n * sizeof *x), *forces = calloc(3 * n, sizeof *forces);
  for (int i = 0; i < n; ++i) {
    check(fgets(line, sizeof line, file) && sscanf(line, "%7s%lf%lf%lf%d", symbol, x + 3 * i, x + 3 * i + 1,
                                                   x + 3 * i + 2, molecules + i) >= 4 + has_molecules,
          "the XYZ file needs one line per atom: symbol x y z, and a molecule where it has them");
    if (has_molecules && molecules[i] >= num_molecules) num_molecules = molecules[i] + 1;
    species[i] = ns_model_find_species(model, symbol);
    check(species[i] >= 0, "the model does not know an element of the XYZ file");
  }
  fclose(file);

  /* the evaluation */
  ns_options options = {sizeof options, NS_PRECISION_MIXED, NS_DEVICE_AUTO, 1, 0.0, -1};
  if (argc > 3 && strcmp(argv[3], "double") == 0) options.precision = NS_PRECISION_DOUBLE;
  if (argc > 4 && strcmp(argv[4], "cuda") == 0) options.device = NS_DEVICE_CUDA;
  ns_evaluator* evaluator = NULL;
  must(ns_evaluator_create(model, &options, NULL, &evaluator));
  ns_system system = {.struct_size = sizeof system, .num_atoms = n, .positions = x, .species = species};
  if (cell) system.cell = h;
  for (int a = 0; a < 3; ++a) system.pbc[a] = cell && pbc[a] == 'T';
  double* neutral = calloc(num_molecules + 1, sizeof *neutral);
  if (has_molecules) {
    system.molecules = molecules;
    system.num_molecules = num_molecules;
    system.molecule_charges = neutral;
  }
  ns_results results = {.struct_size = sizeof results, .forces = forces};
  must(ns_evaluate_system(evaluator, &system, &results));

  printf("%.17g\n", results.energy);
  for (int i = 0; i < n; ++i)
    printf("%.17g %.17g %.17g\n", forces[3 * i], forces[3 * i + 1], forces[3 * i + 2]);
  ns_evaluator_free(evaluator);
  ns_model_free(model);
  free(species), free(molecules), free(x), free(forces), free(neutral);
  return 0;
}
