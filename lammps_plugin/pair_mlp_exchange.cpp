// Rows of numbers per atom between owners and their ghosts: features between the layers of a model and their
// adjoints, forces of the members of a committee.
//
// SPDX-License-Identifier: GPL-2.0-only

#include <comm.h>

#include <algorithm>
#include <cstring>

#include "pair_mlp.h"

using namespace LAMMPS_NS;

namespace {

template <class T>
void add_row(char* target, const double* buffer, int width) {
  T* const sums = reinterpret_cast<T*>(target);
  const T* const row = reinterpret_cast<const T*>(buffer);
  for (int k = 0; k < width; ++k) sums[k] += row[k];
}

}  // namespace

// LAMMPS' buffers are of doubles; single precision takes half of them.
int PairMLP::Rows::doubles() const {
  return static_cast<int>((bytes() + sizeof(double) - 1) / sizeof(double));
}

bool PairMLP::exchanges() const {
  return messages_ == EXCHANGE && ns_model_exchange_width(model_.get()) > 0;
}

// How many cutoffs the ghosts must reach.
int PairMLP::ghost_cutoffs() const {
  return exchanges() ? 1 : ns_model_num_interactions(model_.get());
}

// LAMMPS sizes its buffers after init_style; those of a hybrid style only know what its parts said before.
void PairMLP::announce_widths(Pair* outermost) {
  const int width = exchanges() ? ns_model_exchange_width(model_.get()) : 0;
  comm_forward = width;
  comm_reverse = std::max(3, width);
  outermost->comm_forward = std::max(outermost->comm_forward, comm_forward);
  outermost->comm_reverse = std::max(outermost->comm_reverse, comm_reverse);
}

void PairMLP::lend_exchange(ns_host& host) {
  if (!exchanges()) return;
  host.exchange_forward = [](void* context, void* rows, int width, int is_double) {
    PairMLP& pair = *static_cast<PairMLP*>(context);
    pair.rows_ = {static_cast<char*>(rows), width, is_double != 0};
    pair.comm->forward_comm(&pair, pair.rows_.doubles());
    return 0;
  };
  host.exchange_reverse = [](void* context, void* rows, int width, int is_double) {
    static_cast<PairMLP*>(context)->add_ghosts({static_cast<char*>(rows), width, is_double != 0});
    return 0;
  };
}

void PairMLP::add_ghosts(const Rows& rows) {
  rows_ = rows;
  comm->reverse_comm(this, rows_.doubles());
}

int PairMLP::pack_forward_comm(int count, int* atoms, double* buffer, int, int*) {
  const int doubles = rows_.doubles();
  for (int k = 0; k < count; ++k)
    std::memcpy(buffer + static_cast<std::size_t>(k) * doubles, rows_.of(atoms[k]), rows_.bytes());
  return count * doubles;
}

void PairMLP::unpack_forward_comm(int count, int first, double* buffer) {
  const int doubles = rows_.doubles();
  for (int k = 0; k < count; ++k)
    std::memcpy(rows_.of(first + k), buffer + static_cast<std::size_t>(k) * doubles, rows_.bytes());
}

int PairMLP::pack_reverse_comm(int count, int first, double* buffer) {
  const int doubles = rows_.doubles();
  for (int k = 0; k < count; ++k)
    std::memcpy(buffer + static_cast<std::size_t>(k) * doubles, rows_.of(first + k), rows_.bytes());
  return count * doubles;
}

void PairMLP::unpack_reverse_comm(int count, int* atoms, double* buffer) {
  const int doubles = rows_.doubles();
  for (int k = 0; k < count; ++k) {
    const double* const row = buffer + static_cast<std::size_t>(k) * doubles;
    if (rows_.is_double)
      add_row<double>(rows_.of(atoms[k]), row, rows_.width);
    else
      add_row<float>(rows_.of(atoms[k]), row, rows_.width);
  }
}
