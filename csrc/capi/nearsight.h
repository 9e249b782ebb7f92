/* nearsight.h: the C API of nearsight, the only header that the engine plugins include.
 *
 * Conventions (the single place where C code finds them)
 *   units        length Å, energy eV, force eV/Å, virial eV. Hosts convert at their door.
 *   cell         9 doubles, row-major; the rows are the lattice vectors a, b, c.
 *   edge         directed pair center i -> neighbor j, r_ij = r_j - r_i.
 *   virial       -dE/dstrain, symmetric, six numbers in the order xx, yy, zz, xy, xz, yz.
 *   species      index into the model's species list; -1 marks an atom that the model does not see.
 *   results      arrays are added to, never assigned; the caller clears them.
 * Every function that can fail returns a status; ns_last_error() then holds one sentence for the user.
 * No exception leaves the library. Structures begin with their size, so that fields can be appended.
 */
#ifndef NEARSIGHT_H
#define NEARSIGHT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NS_API_VERSION 1
#define NS_EXPORT __attribute__((visibility("default")))

typedef enum ns_status {
  NS_OK = 0,
  NS_ERROR_ARGUMENT = 1,    /* the caller passed something that cannot be right */
  NS_ERROR_FILE = 2,        /* the model file is missing, damaged, foreign or too new */
  NS_ERROR_UNSUPPORTED = 3, /* right, but not in this build or with this backend */
  NS_ERROR_NUMERIC = 4,     /* atoms on top of each other, NaN, degenerate cell */
  NS_ERROR_INTERNAL = 5
} ns_status;

typedef enum ns_backend { NS_BACKEND_AUTO = 0, NS_BACKEND_NATIVE = 1, NS_BACKEND_TORCHSCRIPT = 2 } ns_backend;
typedef enum ns_precision { NS_PRECISION_MIXED = 0, NS_PRECISION_DOUBLE = 1 } ns_precision;
/* Auto is the CPU as long as the CUDA kernels have not been measured on a GPU. */
typedef enum ns_device { NS_DEVICE_CPU = 0, NS_DEVICE_CUDA = 1, NS_DEVICE_AUTO = 2 } ns_device;

typedef struct ns_model ns_model;         /* a loaded file; immutable, may be shared by evaluators */
typedef struct ns_evaluator ns_evaluator; /* work arrays of one host; one thread calls it at a time */

/* ---- library ---------------------------------------------------------------------------------- */

/* API version of the library that is loaded; a plugin refuses another one than its NS_API_VERSION. */
NS_EXPORT int ns_api_version(void);
NS_EXPORT const char* ns_version(void);
/* One readable sentence about the last call in this thread, "" if it succeeded; the address never changes. */
NS_EXPORT const char* ns_last_error(void);
/* Instruction set that the native kernels use on this machine: "avx512", "avx2" or "baseline". */
NS_EXPORT const char* ns_instruction_set(void);

/* ---- model ------------------------------------------------------------------------------------ */

NS_EXPORT ns_status ns_model_load(const char* path, ns_backend backend, ns_model** model);
NS_EXPORT void ns_model_free(ns_model* model);

NS_EXPORT int ns_model_num_species(const ns_model* model);
/* Chemical symbol of species `index`; NULL if out of range. */
NS_EXPORT const char* ns_model_species(const ns_model* model, int index);
/* Index of a chemical symbol, or -1. */
NS_EXPORT int ns_model_find_species(const ns_model* model, const char* symbol);
/* Cutoff radius of one interaction layer, Å. */
NS_EXPORT double ns_model_cutoff(const ns_model* model);
/* Interaction layers. A domain needs one cutoff of ghosts for each (see ns_evaluate_domain), or one
 * altogether with ns_host.exchange_forward. */
NS_EXPORT int ns_model_num_interactions(const ns_model* model);
/* Numbers per atom of the widest rows that ns_host.exchange_forward is called with; 0 for a model that does
 * not call it. */
NS_EXPORT int ns_model_exchange_width(const ns_model* model);
/* Whether ns_results.centroid_virials can be had: one interaction layer, and an energy that is a sum over
 * atoms. */
NS_EXPORT int ns_model_has_centroid_virials(const ns_model* model);
/* Whether ns_results.virials can be had: not of models with charges, of whose electrostatics only the sum is
 * known. */
NS_EXPORT int ns_model_has_atom_virials(const ns_model* model);
/* Charges of each atom; 0 for a model without electrostatics. */
NS_EXPORT int ns_model_num_charges(const ns_model* model);
/* D3(BJ) dispersion: none, a part of the energy, or one that the model was trained without and the host must
 * add. */
typedef enum ns_dispersion {
  NS_DISPERSION_NONE = 0,
  NS_DISPERSION_INSIDE = 1,
  NS_DISPERSION_BY_HOST = 2
} ns_dispersion;
NS_EXPORT ns_dispersion ns_model_dispersion(const ns_model* model);
/* The functional whose parameters are taken, "pbe"; NULL for a model without dispersion. */
NS_EXPORT const char* ns_model_dispersion_functional(const ns_model* model);
/* Numbers of each atom that the core remembers from one step to the next, see ns_domain.memory; 0 for a model
 * that needs none. */
NS_EXPORT int ns_model_memory(const ns_model* model);
/* Members of a committee: models in one file whose mean is the energy. 1 for a model that is none. */
NS_EXPORT int ns_model_num_members(const ns_model* model);
/* Features (numbers that describe the neighborhood of an atom of one species) whose ranges in the training
 * set are in the file, sorted by species; 0 where none are known, and with the torchscript backend. */
NS_EXPORT int ns_model_num_features(const ns_model* model);

typedef struct ns_feature {
  size_t struct_size;
  int species;       /* of the atoms that have this feature */
  const char* label; /* readable; lives as long as the model */
  double minimum;    /* in the training set */
  double maximum;
} ns_feature;

NS_EXPORT ns_status ns_model_feature(const ns_model* model, int index, ns_feature* feature);
/* Architecture as named in the file, for instance "bpnn". */
NS_EXPORT const char* ns_model_architecture(const ns_model* model);
/* "native" or "torchscript": what ns_model_load chose. */
NS_EXPORT const char* ns_model_backend(const ns_model* model);
/* The text of nearsight.json inside the file. */
NS_EXPORT const char* ns_model_metadata(const ns_model* model);

/* ---- evaluator -------------------------------------------------------------------------------- */

typedef struct ns_options {
  size_t struct_size;
  ns_precision precision;
  ns_device device;
  int num_threads; /* 0 or 1: the calling thread alone */
  double skin;     /* Verlet skin of ns_evaluate_system, Å; 0: a new list at every call. Of a GPU also the one
                      of ns_evaluate_domain, where the list is made on the device from all positions. */
  int device_index; /* of the GPU, from 0 (ns_num_cuda_devices); -1: the first one; or NS_CURRENT_DEVICE */
} ns_options;

/* As ns_options.device_index: the GPU, and the context of CUDA's driver API, that the calling thread has made
 * current. It must be current in every call with that evaluator, also when it is freed. For hosts that use a
 * context of their own; where there is none it is the first GPU, or that of cudaSetDevice. */
#define NS_CURRENT_DEVICE (-2)

/* How many NVIDIA GPUs this machine has; NS_ERROR_UNSUPPORTED where none can be used, with the reason. */
NS_EXPORT ns_status ns_num_cuda_devices(int* count);

/* What a parallel host lends the core. Every rank calls ns_evaluate_domain, also with no atoms, and
 * the core enters every callback the same number of times on every rank. Non-zero return: failure. */
typedef struct ns_host {
  size_t struct_size;
  void* context;
  int rank, num_ranks; /* with all_sum; from 0, at least 1 */
  int (*all_sum)(void* context, double* values,
                 int count); /* sum over ranks, in place, the same bits in all */
  /* Sends send_bytes[r] bytes to rank r and receives receive_bytes[r] from it, also from and to itself; parts
   * stand one after another in the order of ranks. MPI_Alltoallv of bytes. For models with charges or
   * dispersion. */
  int (*all_to_all)(void* context, const void* send, const int64_t* send_bytes, void* receive,
                    const int64_t* receive_bytes);
  /* Features between the layers of a model whose ns_model_exchange_width is not 0; both or none. rows has
   * `width` numbers for each atom of the domain, double or float. Forward: the rows of ghosts become those of
   * their owners. Reverse: the rows of ghosts are added to those of their owners. */
  int (*exchange_forward)(void* context, void* rows, int width, int is_double);
  int (*exchange_reverse)(void* context, void* rows, int width, int is_double);
} ns_host;

/* host may be NULL: one process. It is copied. */
NS_EXPORT ns_status ns_evaluator_create(const ns_model* model, const ns_options* options, const ns_host* host,
                                        ns_evaluator** evaluator);
NS_EXPORT void ns_evaluator_free(ns_evaluator* evaluator);

typedef struct ns_results {
  size_t struct_size;
  double
      energy; /* out: energy of the owned atoms with reference energies, eV; the shares of all ranks add up */
  double virial[6]; /* out: this rank's share */
  double* forces;   /* [3 * atoms] added to, or NULL */
  double* energies; /* [owned atoms] energy per atom, added to, or NULL */
  /* [6 * atoms] virial per atom, half of each edge to each end, added to, or NULL. NS_ERROR_UNSUPPORTED where
   * ns_model_has_atom_virials is 0. */
  double* virials;
  /* [9 * atoms] virial per atom in centroid form, added to, or NULL: W_j = - sum_i r_ij (x) dE_i/dr_ij, all
   * of an edge to its neighbor j, in the order xx, yy, zz, xy, xz, yz, yx, zx, zy; the first index is that of
   * r_ij. It adds up to the virial, and sum_i (e_i v_i + W_i v_i), with e_i potential and kinetic energy of
   * atom i, is the exact heat flux d/dt sum_i r_i e_i of a cluster (Fan et al., Phys. Rev. B 92, 094301
   * (2015); Surblys et al., Phys. Rev. E 99, 051301 (2019)). NS_ERROR_UNSUPPORTED where
   * ns_model_has_centroid_virials is 0. */
  double* centroid_virials;
  /* Of each of the M = ns_model_num_members members of a committee, added to, or NULL; the other results are
   * those of the mean, and the same whether these are asked for or not. NS_ERROR_UNSUPPORTED where M is 1. */
  double* member_energies; /* [M] this rank's share, with reference energies */
  double* member_forces;   /* [M][3 * atoms] */
  double* member_virials;  /* [M][6] this rank's share */
  /* Features of owned atoms outside of their training ranges, [ns_model_num_features] each, all three or
   * none: how often, added to, and the values met, which widen the ranges that the caller puts there. 1e-5 of
   * a feature's size and spread is allowed for round-off. NS_ERROR_UNSUPPORTED without ranges. */
  long long* extrapolations;
  double* lowest_features;
  double* highest_features;
  /* Of models with C = ns_model_num_charges charges per atom, added to, or NULL: charges, e, and
   * dE/d(charge), V. NS_ERROR_UNSUPPORTED where C is 0. */
  double* charges;      /* [owned atoms][C] */
  double* potentials;   /* [owned atoms][C] */
  double electrostatic; /* out: this rank's share of the energy that is electrostatic, eV */
  /* [9 * atoms] Born effective charges d(dipole)/dr_i, e, added to, or NULL; docs/electrostatics.md.
   * Row-major, the index of the dipole first. NS_ERROR_UNSUPPORTED for models without charges or with several
   * interaction layers, and with several ranks. */
  double* born_charges;
  /* out: seconds of this rank in PME without its set-up: all, exchanges between ranks with waiting, Fourier
   * transforms, pairs, and charges to the mesh and back; 0 of models without charges */
  double electrostatic_seconds;
  double communication_seconds;
  double transform_seconds;
  double pair_seconds;
  double spreading_seconds;
  int equilibration_steps; /* out: steps that equilibrated charges took */
  double dispersion;       /* out: this rank's share of the energy that is D3(BJ) dispersion, eV */
} ns_results;

/* A molecule or a periodic system in one process; the neighbor list is made inside. */
typedef struct ns_system {
  size_t struct_size;
  int num_atoms;
  const double* positions; /* [3 * num_atoms] Å; need not be wrapped */
  const int* species;      /* [num_atoms] */
  const double* cell;      /* [9] Å, or NULL without periodic directions */
  int pbc[3];
  /* e, of a model with charges; NULL: 0, of fixed charges without periodic directions what they add up to */
  const double* total_charge;
  /* [3] V/Å, uniform electric field on the charges of a model that has them (of several latent ones the
   * first), or NULL. Their energy -sum_i q_i r_i . efield is that of the positions as they are. Along
   * periodic directions of fixed charges only. */
  const double* efield;
  /* In place of total_charge: a partition of the atoms into molecules, each of which keeps a charge of its
   * own; equilibrated charges flow, and missing ones of the environment are shared, within a molecule only,
   * and fixed charges must add up. The interaction reaches over molecules as ever. All three or, without
   * molecules, NULL, 0, NULL. Molecules without atoms that the model sees may have any charge. Born charges
   * are refused. */
  const int* molecules; /* [num_atoms] from 0 */
  int num_molecules;
  const double* molecule_charges; /* [num_molecules] e */
} ns_system;

NS_EXPORT ns_status ns_evaluate_system(ns_evaluator* evaluator, const ns_system* system, ns_results* results);

/* As ns_evaluate_system, of an evaluator on device cuda, but system->positions and results->forces (or NULL)
 * are in memory of its GPU; everything else is the host's memory as ever. The positions are read after what
 * `stream`, a cudaStream_t or CUstream of the GPU or NULL for the default one, holds when the call is made.
 * All is done when it returns, so the host may queue on any stream what reads the forces, of which only those
 * of atoms that the model sees are touched; after an error they are undefined.
 * What the host's memory gets are the readouts of the model, for most one number for an atom. Positions come
 * down only when a neighbor list is made, and with charges or dispersion, which take them from the host, in
 * every call; what these two add to the forces goes up again. */
NS_EXPORT ns_status ns_evaluate_device(ns_evaluator* evaluator, const ns_system* system, void* stream,
                                       ns_results* results);

/* The part of a larger system that one rank owns, with its ghosts and a full neighbor list from the host.
 * `num_neighbors` and `neighbors` are indexed by atom; `centers` names the atoms that have a list: all owned
 * ones, and with num_interactions > 1, without exchange of features, also the ghosts within (num_interactions
 * - 1) cutoffs of an owned atom. Neighbor entries are masked with neighbor_mask first. Pairs beyond the
 * cutoff (skin) are skipped. */
typedef struct ns_domain {
  size_t struct_size;
  int num_owned;           /* atoms 0 .. num_owned-1 */
  int num_atoms;           /* owned and ghosts */
  const double* positions; /* [3 * num_atoms] Å */
  const int* species;      /* [num_atoms] */
  int num_centers;
  const int* centers;          /* [num_centers] */
  const int* num_neighbors;    /* [num_atoms] */
  const int* const* neighbors; /* [num_atoms][num_neighbors[i]] */
  int neighbor_mask;           /* -1: no mask */
  /* Of the whole system, for models with charges or dispersion: as in ns_system. */
  const double* cell;
  int pbc[3];
  const double* total_charge;
  const double* efield;
  /* [num_owned][ns_model_memory] in and out, or NULL: what the core remembers of each atom, here the last
   * equilibrated charges. The host sets it to 0 for new atoms and lets it travel with them, to other ranks
   * and through restart files. Without it a step begins with no guess and takes longer; results agree to the
   * residual of the model. ns_evaluate_system keeps it inside. */
  double* memory;
  /* As in ns_system; a molecule has the same number on all ranks, and may be on several. */
  const int* molecules; /* [num_owned] */
  int num_molecules;    /* of the whole system */
  const double* molecule_charges;
} ns_domain;

NS_EXPORT ns_status ns_evaluate_domain(ns_evaluator* evaluator, const ns_domain* domain, ns_results* results);

#ifdef __cplusplus
}
#endif
#endif
