// Importing this module registers torch.ops.transphere.*; it exports facts about the build and scalar doors for the tests.
#include <pybind11/pybind11.h>

#include "vmf_tau.h"
#include "wood.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.def("build_info", [] {
    py::dict d;
    d["compiler"] = __VERSION__;
#ifdef TRANSPHERE_WITH_CUDA
    d["cuda"] = TRANSPHERE_CUDA_ARCHS;
#else
    d["cuda"] = false;
#endif
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
    d["cpu"] = __builtin_cpu_supports("x86-64-v4") ? "x86-64-v4" : __builtin_cpu_supports("x86-64-v3") ? "x86-64-v3" : "x86-64";
#else
    d["cpu"] = "baseline";
#endif
    return d;
  });
  m.def("_philox", [](uint32_t k0, uint32_t k1, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
    const auto r = transphere::philox({k0, k1}, c0, c1, c2, c3);
    return py::make_tuple(r.w[0], r.w[1], r.w[2], r.w[3]);
  });
  m.def("_vmf_tau", [](double w, double v, double kappa, int64_t d, bool pathwise) { return transphere::vmf_tau(w, v, kappa, d, pathwise); });
}
