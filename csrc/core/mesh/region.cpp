#include "core/mesh/region.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

namespace nearsight {
namespace {

constexpr int kSlots = 256;            // in which gaps between atoms are looked for
constexpr double kMargin = 1e-9;       // of fractional coordinates, for round-off
constexpr std::size_t kPerCharge = 5;  // numbers that are sent

struct Slot {
  double low = 1.0, high = -1.0;
  bool empty() const { return high < low; }
};

/// Of coordinates in [0, 1), from the end of the widest gap to its beginning.
Slot shortest_arc(const std::array<Slot, kSlots>& slots) {
  int longest = 0, run = 0, end = 0;
  for (int k = 0; k < 2 * kSlots; ++k) {
    run = slots[k % kSlots].empty() ? run + 1 : 0;
    if (run > longest && run < kSlots) {
      longest = run;
      end = (k + 1) % kSlots;
    }
  }
  if (longest == 0) return {0.0, 1.0};
  return {slots[end].low, slots[(end + 2 * kSlots - longest - 1) % kSlots].high};
}

Region own_region(Span<const double> positions, const Box& box) {
  std::array<std::array<Slot, kSlots>, 3> slots;
  for (std::size_t i = 0; i < positions.size() / 3; ++i) {
    const Vec3 s = fractions(positions, i, box);
    for (int d = 0; d < 3; ++d) {
      Slot& slot = slots[d][static_cast<int>(s[d] * kSlots)];
      slot.low = std::min(slot.low, s[d]);
      slot.high = std::max(slot.high, s[d]);
    }
  }
  Region region;
  region.empty = positions.empty();
  for (int d = 0; d < 3 && !region.empty; ++d) {
    const Slot arc = shortest_arc(slots[d]);
    region.low[d] = arc.low;
    region.high[d] = arc.high;
  }
  return region;
}

/// True if two regions, which are not empty, or their images are within `reach` along all directions.
bool are_near(const Region& a, const Region& b, const Vec3& reach) {
  for (int d = 0; d < 3; ++d) {
    const double ahead = b.low[d] - a.low[d], t = ahead < 0 ? ahead + 1.0 : ahead;
    if (t > a.length(d) + reach[d] && 1.0 - t > b.length(d) + reach[d]) return false;
  }
  return true;
}

}  // namespace

Wrapped wrap(Span<const double> positions, std::size_t i, const Box& box) {
  Wrapped wrapped{times(point(positions, i), box.inverse), {}};
  for (int d = 0; d < 3; ++d) {
    double& s = wrapped.fractions[d];
    double cells = std::floor(s);
    s -= cells;
    if (s >= 1.0) {  // of a tiny negative number
      s = 0.0;
      cells += 1.0;
    }
    wrapped.shift[d] = -static_cast<std::int32_t>(cells);
  }
  return wrapped;
}

std::vector<Region> find_regions(Span<const double> positions, const Box& box, Ranks& ranks) {
  constexpr int kNumbers = 7;
  const Region own = own_region(positions, box);
  const std::array<double, kNumbers> numbers{own.low[0],  own.low[1],  own.low[2],           own.high[0],
                                             own.high[1], own.high[2], own.empty ? 1.0 : 0.0};
  const std::vector<double> all = ranks.gather({numbers.data(), kNumbers});
  std::vector<Region> regions(ranks.size());
  for (std::size_t r = 0; r < regions.size(); ++r) {
    const double* const found = all.data() + kNumbers * r;
    regions[r] = {{found[0], found[1], found[2]}, {found[3], found[4], found[5]}, found[6] != 0.0};
  }
  return regions;
}

template <class Wanted>
void Surroundings::choose(Ranks& ranks, const Wanted& wanted) {
  sent_.clear();
  given_.clear();
  taken_.assign(ranks.size(), 0);
  if (ranks.alone()) return;
  for (int r = 0; r < ranks.size(); ++r) {
    const std::vector<std::size_t> found = wanted(r);
    sent_.insert(sent_.end(), found.begin(), found.end());
    given_.push_back(found.size());
  }
  const std::vector<std::size_t> one(ranks.size(), 1);
  ranks.exchange(given_.data(), one, taken_.data(), one);
}

void Surroundings::choose_near(double cutoff, Span<const double> positions, const Box& box,
                               const std::vector<Region>& regions, Ranks& ranks) {
  Vec3 reach;  // cutoff over the distance between faces
  for (int d = 0; d < 3; ++d) {
    const Vec3 column{box.inverse[d], box.inverse[3 + d], box.inverse[6 + d]};
    reach[d] = cutoff * norm(column) + kMargin;
  }
  std::vector<Region> places(ranks.alone() ? 0 : positions.size() / 3);
  for (std::size_t i = 0; i < places.size(); ++i)
    places[i].low = places[i].high = fractions(positions, i, box);
  const Region& here = regions[ranks.rank()];
  choose(ranks, [&](int r) {
    std::vector<std::size_t> wanted;
    if (r == ranks.rank() || here.empty || regions[r].empty || !are_near(regions[r], here, reach))
      return wanted;
    for (std::size_t i = 0; i < places.size(); ++i)
      if (are_near(regions[r], places[i], reach)) wanted.push_back(i);
    return wanted;
  });
}

void Surroundings::choose_all(std::size_t own, Ranks& ranks) {
  choose(ranks, [&](int r) {
    std::vector<std::size_t> wanted(r == ranks.rank() ? 0 : own);
    std::iota(wanted.begin(), wanted.end(), 0);
    return wanted;
  });
}

std::vector<double> Surroundings::collect(Span<const double> own, std::size_t width, Ranks& ranks) const {
  std::vector<double> rows(own.begin(), own.end());
  if (ranks.alone()) return rows;
  std::vector<double> parts;
  for (const std::size_t i : sent_)
    parts.insert(parts.end(), own.begin() + width * i, own.begin() + width * (i + 1));
  rows.resize(own.size() + width * std::accumulate(taken_.begin(), taken_.end(), std::size_t(0)));
  std::vector<std::size_t> given(given_), taken(taken_);
  for (auto* counts : {&given, &taken})
    for (std::size_t& count : *counts) count *= width;
  ranks.exchange(parts.data(), given, rows.data() + own.size(), taken);
  return rows;
}

Charges ChargeSurroundings::again(const Charges& own, Ranks& ranks) {
  if (ranks.alone()) return own;
  std::vector<double> parts;
  for (std::size_t i = 0; i < own.size(); ++i) {
    parts.insert(parts.end(), own.positions.begin() + 3 * i, own.positions.begin() + 3 * i + 3);
    parts.push_back(own.values[i]);
    parts.push_back(own.width(i));
  }
  positions_.clear();
  values_.clear();
  widths_.clear();
  const std::vector<double> all = chosen_.collect(parts, kPerCharge, ranks);
  for (const double* charge = all.data(); charge < all.data() + all.size(); charge += kPerCharge) {
    positions_.insert(positions_.end(), charge, charge + 3);
    values_.push_back(charge[3]);
    widths_.push_back(charge[4]);
  }
  return {positions_, values_, widths_};
}

Charges ChargeSurroundings::within(double cutoff, const Charges& own, const Box& box,
                                   const std::vector<Region>& regions, Ranks& ranks) {
  chosen_.choose_near(cutoff, own.positions, box, regions, ranks);
  return again(own, ranks);
}

Charges ChargeSurroundings::all(const Charges& own, Ranks& ranks) {
  if (ranks.alone()) return own;
  check_charges(own);
  chosen_.choose_all(own.size(), ranks);
  return again(own, ranks);
}

}  // namespace nearsight
