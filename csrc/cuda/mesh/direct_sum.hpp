#pragma once
#include "cuda/mesh/charges.hpp"

namespace nearsight {
namespace cuda {

/// Rows of ChargeSums::virials that it writes for so many charges of this rank.
std::size_t direct_sum_rows(std::size_t num_charges);

/// The sum over all pairs of an open system, for the charges of this rank.
void direct_sum(const Stream& stream, const DeviceCharges& charges, const ChargeSums& sums);

}  // namespace cuda
}  // namespace nearsight
