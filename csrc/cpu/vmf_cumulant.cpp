#include "vmf_cumulant.h"

#include <algorithm>

namespace transphere {
namespace {

template <int ORDER, bool HIGH, typename T>
inline void cumulant_range(const T* kappa, T* out, const VmfDimension& o, int64_t begin, int64_t end) {
  for (int64_t first = begin; first < end; first += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, end - first);
    alignas(64) double kappas[kLanes], k[kLanes], nu[kLanes], half[kLanes] = {}, deficit[kLanes] = {}, product[kLanes] = {};
    alignas(64) double A[kLanes] = {}, A1[kLanes] = {}, A2[kLanes] = {}, A3[kLanes] = {}, result[kLanes];
    for (int l = 0; l < kLanes; ++l) kappas[l] = 1;
    for (int l = 0; l < count; ++l) kappas[l] = double(kappa[first + l]);

    const double least = o.steps > 0 ? kDebyeLeast : 0;  // below it, lanes are shifted
    double lowest = kLargest, highest = 0;
    for (int l = 0; l < kLanes; ++l) {
      k[l] = vmf_regular(kappas[l]);
      nu[l] = k[l] < least ? o.high : o.low;
      lowest = k[l] < lowest ? k[l] : lowest;
      highest = k[l] > highest ? k[l] : highest;
    }
    if (ORDER != 0 || lowest < least)
      for (int l = 0; l < kLanes; ++l) vmf_expand<ORDER, HIGH>(VmfPoint(k[l], nu[l]), half[l], A[l], A1[l], A2[l], A3[l]);
    if constexpr (ORDER <= 0) {
      if (o.low >= kDebyeLeast || lowest < least)
        for (int l = 0; l < kLanes; ++l) deficit[l] = vmf_deficit_above<ORDER, HIGH>(VmfPoint(k[l], o.high), o);
      if (o.low < kDebyeLeast && highest >= least)
        for (int l = 0; l < kLanes; ++l) {
          const double direct = vmf_deficit_direct<ORDER>(VmfPoint(k[l], o.low), o);
          deficit[l] = k[l] < least ? deficit[l] : direct;
        }
    }
    if (lowest < least) {  // all lanes go down, and those that must not are put back
      alignas(64) double shifted[kLanes], B[kLanes], B1[kLanes], B2[kLanes], B3[kLanes];
      for (int l = 0; l < kLanes; ++l) {
        shifted[l] = k[l] < least ? k[l] : 1;
        B[l] = A[l], B1[l] = A1[l], B2[l] = A2[l], B3[l] = A3[l];
      }
      for (double m = 2 * o.high; m > 2 * o.low + 1; m -= 2) {
        const double inverse_m = 1 / m;
        for (int l = 0; l < kLanes; ++l) vmf_descend<ORDER>(shifted[l], m, inverse_m, product[l], B[l], B1[l], B2[l], B3[l]);
      }
      for (int l = 0; l < kLanes; ++l) {
        const bool keep = k[l] < least;
        product[l] = keep ? product[l] : 0;
        A[l] = keep ? B[l] : A[l], A1[l] = keep ? B1[l] : A1[l], A2[l] = keep ? B2[l] : A2[l], A3[l] = keep ? B3[l] : A3[l];
      }
    }
    for (int l = 0; l < kLanes; ++l) {
      const VmfPoint p(k[l], nu[l]);
      const double value = vmf_value<ORDER>(p, k[l] < least, deficit[l], product[l], half[l], A[l], A1[l], A2[l], A3[l]);
      result[l] = vmf_at_ends<ORDER>(kappas[l], value, o);
    }
    for (int l = 0; l < count; ++l) out[first + l] = T(result[l]);
  }
}

template <typename T>
inline void any_range(const T* kappa, T* out, const VmfDimension& o, int order, int64_t begin, int64_t end) {
  dispatch_vmf_order(order, [&](auto n) {
    if (o.low >= kDebyeHigh)
      cumulant_range<decltype(n)::value, true>(kappa, out, o, begin, end);
    else
      cumulant_range<decltype(n)::value, false>(kappa, out, o, begin, end);
  });
}

}  // namespace

#define TS_INSTANTIATE(T)                                                                                                            \
  template <>                                                                                                                        \
  TS_EVERY_ISA void vmf_cumulant_cpu(const T* kappa, T* out, const VmfDimension& o, int order, int64_t begin, int64_t end) {             \
    any_range(kappa, out, o, order, begin, end);                                                                                     \
  }
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
