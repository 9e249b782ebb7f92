#pragma once
#include "core/couple/charges.hpp"

namespace nearsight {

/// Charges of least energy at the total charge Q, for electronegativities χ, the readout (Ko, Finkler,
/// Goedecker and Behler, Nat. Commun. 12, 398 (2021)):
///
///   E(q) = Σ χ_i q_i + ½ Σ d_i q_i² + ½ Σ q_i φ_i + Σ q_i φ_i^outer,  d_i = J_i + k_C / (√π σ_i)
///
/// with hardness J and width σ of the species and the potential φ of all other charges: A q = b with A = d +
/// φ and b = -χ - φ^outer, up to a constant λ. Conjugate gradients within Σ q = Q, with the preconditioner 1
/// / d and its projection, until |P(b - A q)|₂ ≤ residual |b - λ₀|₂; P subtracts the mean, and b - λ₀ is what
/// d q would be if charges had no potential. Where molecules have charges, Σ, λ and P are those of each
/// molecule. Two sums over ranks in each step, of a number for each molecule and two more, beside those of
/// the potentials. NEARSIGHT_RESIDUAL in the environment replaces the residual of the record.
///
/// An atom remembers its last charges. The first guess is the linear combination of them whose coefficients,
/// alike for all atoms, would have predicted the last ones best; atoms without a past begin with q = (b - λ₀)
/// / d.
///
/// Throws Error (file) where d is not positive, whose names are those of `species`; settle throws Error
/// (numeric) if A is not positive definite, if the steps do not converge, or χ is not finite.
std::unique_ptr<ChargeRule> make_equilibrated_charges(const ChargeRecord& record,
                                                      const std::vector<std::string>& species);

}  // namespace nearsight
