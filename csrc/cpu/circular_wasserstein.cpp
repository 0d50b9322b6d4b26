// Small and medium problems side by side in vectors (circular_columns.h), large ones one by one (circular_large.h). Which of the two, and
// so every bit of the result, depends on n + m alone.
#include "circular_wasserstein.h"

#include "cpu/circular_columns.h"
#include "cpu/circular_large.h"
#include "team.h"

namespace transphere {
namespace {

template <typename T, int W>
inline void solve_columns(const CircularProblems<T>& q, int64_t begin, int64_t end) {
  CircularColumns<T, W> columns(q);
  for (int64_t first = begin; first < end; first += W) columns.solve(first, std::min<int64_t>(W, end - first));
}

// W is the width of the machine's vectors in 64-bit numbers: the compiler takes wider rows apart, and badly. Hence not TS_EVERY_ISA.
template <typename T>
__attribute__((flatten)) void columns_of_2(const CircularProblems<T>& q, int64_t begin, int64_t end) {
  solve_columns<T, 2>(q, begin, end);
}
#ifdef TS_X86_LEVELS
template <typename T>
__attribute__((flatten, target("arch=x86-64-v3"))) void columns_of_4(const CircularProblems<T>& q, int64_t begin, int64_t end) {
  solve_columns<T, 4>(q, begin, end);
}
template <typename T>
__attribute__((flatten, target("arch=x86-64-v4"))) void columns_of_8(const CircularProblems<T>& q, int64_t begin, int64_t end) {
  solve_columns<T, 8>(q, begin, end);
}
#endif

template <typename T>
auto widest_columns() {
#ifdef TS_X86_LEVELS
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (v4) return columns_of_8<T>;
  if (v3) return columns_of_4<T>;
#endif
  return columns_of_2<T>;
}

// Where a problem's points lie P apart, they share cache lines with those of its neighbours: several problems are brought in at once.
template <typename T>
inline void solve_large(const CircularProblems<T>& q, int64_t begin, int64_t end, const Team& team) {
  const int64_t n = q.n, m = q.m, P = q.P, points = n + m, together = P == 1 ? 1 : std::clamp<int64_t>((1 << 22) / points, 1, 16);
  CircularLarge<T> large(n, m, q.u_weights != nullptr, team);
  const int64_t gathered = P == 1 ? 0 : together * points;
  Scratch<T> x(gathered), potential(q.u_weights ? gathered : 0);
  for (int64_t first = begin, count; first < end; first += count) {
    const int64_t b = first / P, p = first % P;
    count = std::min({together, end - first, P - p});
    const int64_t u = b * n * P + p, v = b * m * P + p;  // where the points begin
    CircularProblem<T> one{q.u + u, q.v + v, nullptr, nullptr, q.cost + first, q.u_slope + u, q.v_slope + v, nullptr, nullptr};
    if (q.u_weights) {
      one.u_weights = q.u_weights + b * n, one.v_weights = q.v_weights + b * m;
      one.u_potential = q.u_potential + u, one.v_potential = q.v_potential + v;
    }
    if (P == 1) {
      large.solve(one);
      continue;
    }
    const auto gather = [&](const T* from, int64_t size, T* to) {
      for (int64_t i = 0; i < size; ++i)
        for (int64_t l = 0; l < count; ++l) to[l * points + i] = from[i * P + l];
    };
    const auto scatter = [&](const T* from, int64_t size, T* to) {
      for (int64_t i = 0; i < size; ++i)
        for (int64_t l = 0; l < count; ++l) to[i * P + l] = from[l * points + i];
    };
    gather(q.u + u, n, x.data()), gather(q.v + v, m, x.data() + n);
    for (int64_t l = 0; l < count; ++l) {  // the points are read before their slopes take their places
      T *at = x.data() + l * points, *rise = q.u_weights ? potential.data() + l * points : at;
      large.solve({at, at + n, one.u_weights, one.v_weights, one.cost + l, at, at + n, rise, rise + n});
    }
    scatter(x.data(), n, one.u_slope), scatter(x.data() + n, m, one.v_slope);
    if (q.u_weights) scatter(potential.data(), n, one.u_potential), scatter(potential.data() + n, m, one.v_potential);
  }
}

}  // namespace

#define TS_INSTANTIATE(T)                                                                                                                \
  template <>                                                                                                                            \
  void circular_wasserstein_cpu(const CircularProblems<T>& problems, int64_t begin, int64_t end) {                                       \
    static const auto columns = widest_columns<T>();                                                                                     \
    columns(problems, begin, end);                                                                                                       \
  }                                                                                                                                      \
  template <>                                                                                                                            \
  TS_EVERY_ISA void circular_wasserstein_large_cpu(const CircularProblems<T>& problems, int64_t begin, int64_t end, const Team& team) {  \
    solve_large(problems, begin, end, team);                                                                                             \
  }
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
