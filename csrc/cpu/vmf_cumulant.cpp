#include "vmf_cumulant.h"

namespace transphere {

template <typename T>
void vmf_cumulant_cpu(const T* kappa, T* out, int64_t d, int order, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) out[i] = T(vmf_cumulant(double(kappa[i]), d, order));
}

template void vmf_cumulant_cpu(const float*, float*, int64_t, int, int64_t, int64_t);
template void vmf_cumulant_cpu(const double*, double*, int64_t, int, int64_t, int64_t);

}  // namespace transphere
