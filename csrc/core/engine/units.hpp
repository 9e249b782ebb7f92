#pragma once

namespace nearsight {

constexpr double kBohr = 0.529177210903, kHartree = 27.211386245988;  // Å, eV; CODATA 2018

}  // namespace nearsight
