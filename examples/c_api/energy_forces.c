/* Energy (eV) and forces (eV/A) of the first frame of an XYZ file, through the C API of nearsight.
 *   nearsight-energy-forces model.pt frame.xyz [mixed|double]
 * Periodic in all directions if the comment line holds Lattice="ax ay az bx by bz cx cy cz". */
#include <nearsight.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int ok, const char* message) {
  if (ok) return;
  fprintf(stderr, "%s\n", message);
  exit(1);
}

int main(int argc, char** argv) {
  check(argc >= 3, "usage: nearsight-energy-forces model.pt frame.xyz [mixed|double]");
  ns_model* model = NULL;
  check(ns_model_load(argv[1], NS_BACKEND_AUTO, &model) == NS_OK, ns_last_error());

  FILE* file = fopen(argv[2], "r");
  int n = 0;
  char comment[4096], symbol[8];
  check(file && fscanf(file, "%d ", &n) == 1 && fgets(comment, sizeof comment, file),
        "this is not an XYZ file");
  int* species = malloc(n * sizeof *species);
  double *x = malloc(3 * n * sizeof *x), *forces = calloc(3 * n, sizeof *forces), h[9];
  for (int i = 0; i < n; ++i) {
    check(fscanf(file, "%7s %lf %lf %lf%*[^\n]", symbol, &x[3 * i], &x[3 * i + 1], &x[3 * i + 2]) == 4,
          "the XYZ file ends early");
    species[i] = ns_model_find_species(model, symbol);
    check(species[i] >= 0, "the model does not know an element of the XYZ file");
  }
  fclose(file);
  const char* lattice = strstr(comment, "Lattice=\"");
  const int periodic = lattice && sscanf(lattice, "Lattice=\"%lf %lf %lf %lf %lf %lf %lf %lf %lf", h, h + 1,
                                         h + 2, h + 3, h + 4, h + 5, h + 6, h + 7, h + 8) == 9;

  ns_options options = {sizeof options, NS_PRECISION_MIXED, NS_DEVICE_AUTO, 1, 0.0};
  if (argc > 3 && strcmp(argv[3], "double") == 0) options.precision = NS_PRECISION_DOUBLE;
  ns_evaluator* evaluator = NULL;
  check(ns_evaluator_create(model, &options, NULL, &evaluator) == NS_OK, ns_last_error());
  const ns_system system = {
      sizeof system, n, x, species, periodic ? h : NULL, {periodic, periodic, periodic}};
  ns_results results = {.struct_size = sizeof results, .forces = forces};
  check(ns_evaluate_system(evaluator, &system, &results) == NS_OK, ns_last_error());

  printf("%.17g\n", results.energy);
  for (int i = 0; i < n; ++i)
    printf("%.17g %.17g %.17g\n", forces[3 * i], forces[3 * i + 1], forces[3 * i + 2]);
  ns_evaluator_free(evaluator);
  ns_model_free(model);
  free(species), free(x), free(forces);
  return 0;
}
