// Newton's method on the dual where updates are slow (docs/mathematics.md, "Newton"): u eliminated, a step in log v (and log t) by conjugate
// gradients, each a pass over K, to a third of the gradient. Preconditioned by the diagonal without what a column gives back to itself,
// which near a permutation is all but a millionth of it: that takes steps of some five passes where c would take hundreds.
#pragma once
#include "cuda/sinkhorn_pass.cuh"
#include "cuda/sinkhorn_potentials.cuh"

namespace transphere {

template <typename T, Span S>
class Newton {
 public:
  static constexpr int kVectors = 7;  // of the block's columns, in `history`
  static constexpr int kLeast = 8;    // passes that a step is not begun without

  __device__ Newton(Potentials<T, S>& p, Pass<T, T, S>& pass, T* history)
      : p(p), pass(pass), history_(history), columns_(p.field.right - p.field.left) {}

  __device__ bool can() const { return history_; }
  // A step was made, and the pass over it has yet to show whether it may stay.
  __device__ bool pending() const { return trials_ > 0; }
  __device__ void drop() { trials_ = 0; }

  // From u(turn ^ 1), that of v(turn), with all column sums in parts.all: the step, to v(turn ^ 1) and next_t, which is then pending; if none
  // rises, the column sums are as they were. Returns the passes that it took, at most `most`.
  __device__ __forceinline__ int step(int most, T& next_t) {
    const T t = p.t;
    const T *const u = p.s.u(p.turn ^ 1), *const v = p.s.v(p.turn);
    T* const q = p.s.v(p.turn ^ 1);
    prepare(u, v, t);
    int passes = p.neither ? 2 : 1;
    double z2 = 0;
    T res_t = right_t_, to_t = right_t_ / d_t_;
    T step_t = 0;
    own([&](int k, int j) {
      const T z = res(k) / d(k);
      x(k) = 0, to(k) = z;
      p.team.put(&q[j], v[j] * z);
      z2 += double(res(k)) * z;
    });
    z2 = p.team.sum(z2) + double(res_t) * to_t;
    const float enough = kForcing * kForcing * float(z2);
    for (; passes < most && passes < kMostPasses && z2 > enough; ++passes) {
      pass.run(q, p.s.w(), p.parts.own, [&](int i, T dot, bool) {
        const T weight = p.a(i), part = t * u[i];
        return weight > 0 && u[i] < p.s.cap_u()[i] ? part * (part * dot / weight) : T(0);
      });
      p.parts.publish(p.team, p.field, Sum());
      p.team.sync();
      double curvature = 0;
      T product_t = 0;
      own([&](int k, int j) {
        T product = c(k) * to(k) - v[j] * p.parts.collect(j, p.m, Sum());
        if (p.neither) product += outside(k) * to_t, product_t += outside(k) * to(k);
        if (!(c(k) > 0)) product = 0;
        p.parts.all[j] = product;
        curvature += double(to(k)) * product;
      });
      curvature = p.team.sum(curvature);
      if (p.neither) {
        product_t = T(p.team.sum(product_t)) + outside_total_ * to_t;
        curvature += double(to_t) * product_t;
      }
      if (!(curvature > 0)) break;
      const T along = T(z2 / curvature);
      double next = 0;
      own([&](int k, int j) {
        x(k) += along * to(k);
        const T r = res(k) -= along * p.parts.all[j];
        next += double(r) * (r / d(k));
      });
      step_t += along * to_t;
      res_t -= along * product_t;
      next = p.team.sum(next) + double(res_t) * (res_t / d_t_);
      const T back = T(next / z2);
      own([&](int k, int j) {
        to(k) = res(k) / d(k) + back * to(k);
        p.team.put(&q[j], v[j] * to(k));
      });
      to_t = res_t / d_t_ + back * to_t;
      z2 = next;
      p.team.sync();
    }
    begin(step_t, next_t);
    return passes;
  }

  // After a pass over a pending step, with all column sums in parts.all: whether it stays. If not, a shorter one has taken its place in
  // v(turn) and p.t, or, after kMostTrials, what was before. `error`: then that of the columns with u(turn), this thread's part.
  __device__ __forceinline__ bool stays(double& error) {
    const T *const v = p.s.v(p.turn), *const before = p.s.v(p.turn ^ 1);
    const Step was = pending_step();
    double slope = 0, total = 0, misses = 0;
    own([&](int k, int j) {
      const T weight = p.b(j), sum = p.t * p.parts.all[j] * v[j];
      T lack = weight - sum;
      if (v[j] >= p.s.cap_v()[j] && lack > 0) lack = 0;
      slope += double(x(k)) * lack;
      total += sum;
      misses += fabs(lack);
    });
    slope = p.team.sum(slope);
    misses = p.team.sum(misses);
    if (p.neither) {
      total = p.team.sum(total);
      slope += double(was.step_t) * (p.mass() - total);
      misses += fabs(p.mass() - total);
    }
    if (slope >= -kBeyond * was.slope) {
      useless_ = !(float(misses) < kUseful * error_);
      error_ = float(misses);
      trials_ = 0;
      return true;
    }
    const float ratio = float(was.slope) / (float(was.slope) - float(slope));  // where the slope is 0, were it linear
    T length = was.length * T(ratio > 0.5f ? 0.5f : ratio > 0.1f ? ratio : 0.1f);
    if (++trials_ > kMostTrials) {
      length = 0;
      trials_ = 0;
      useless_ = true;
    }
    p.t = was.t * exp(length * was.step_t);
    error = total = 0;
    own([&](int k, int j) {
      const T next = moved(k, j, length, before[j]), sum = p.t * sums(k) * next;
      p.team.put(&p.s.v(p.turn)[j], next);
      total += sum;
      error += miss(sum, p.t * sums(k) * p.s.cap_v()[j], p.b(j));
    });
    error += missing_mass(total);
    if (threadIdx.x == 0) pending_step().length = length;
    p.team.sync();
    return false;
  }

  // Whether, after a step that stays, another one shall follow at once; an error after which it need not.
  __device__ bool again(double enough) const { return error_ > enough && !useless_; }
  // Steps do not help: of how many updates the next must wait.
  __device__ int wait() {
    const int wait = useless_ ? 8 << (failures_ < 5 ? failures_++ : 5) : 4;
    useless_ = false;
    error_ = INFINITY;
    return wait;
  }

  // This thread's part of the columns' error of a step that was just made.
  __device__ __forceinline__ double step_error(T t, bool& bad) {
    constexpr T most = kMostScaling<T>, least = 1 / most;
    double error = 0, total = 0;
    own([&](int k, int j) {
      const T next = p.s.v(p.turn ^ 1)[j], weight = p.b(j), sum = t * sums(k) * next;
      if (weight > 0) bad = bad || !(next >= least * weight && next <= most * weight);
      total += sum;
      error += miss(sum, t * sums(k) * p.s.cap_v()[j], weight);
    });
    bad = bad || !(t >= least && t <= most);
    return error + missing_mass(total);
  }

 private:
  static constexpr float kForcing = 0.3f, kBeyond = 0.9f, kUseful = 0.7f;
  // Of a step, in logarithms: where all that adds to an entry must grow from nothing, derivatives send it much too far.
  static constexpr T kReach = 8;
  static constexpr int kMostPasses = 40, kMostTrials = 6;
  static constexpr T kTiny = sizeof(T) == 4 ? T(1e-7) : T(1e-14);  // what rounding leaves of a diagonal

  Potentials<T, S>& p;
  Pass<T, T, S>& pass;
  T* const history_;
  const int columns_;
  int trials_ = 0, failures_ = 0;
  bool useless_ = false;  // the last step
  float error_ = INFINITY;  // after it
  T right_t_ = 0, d_t_ = 1, outside_total_ = 0;  // of log t: gradient and diagonal

  __device__ T& vector(int i, int k) const { return history_[i * columns_ + k]; }
  __device__ T& sums(int k) const { return vector(0, k); }     // K'u
  __device__ T& c(int k) const { return vector(1, k); }        // the plan's columns, 0 where they are not active
  __device__ T& d(int k) const { return vector(2, k); }        // the diagonal
  __device__ T& res(int k) const { return vector(3, k); }      // residual
  __device__ T& to(int k) const { return vector(4, k); }       // direction
  __device__ T& x(int k) const { return vector(5, k); }        // the step
  __device__ T& outside(int k) const { return vector(6, k); }  // part of c in rows that are not active; only if neither side is tight

  // What a pending step leaves to be known, behind the vectors: registers are short.
  struct Step {
    T slope, length, t, step_t;  // the gain it promised; what part of it was made; t before it, and by how much log t moves
  };
  __device__ Step& pending_step() const { return *reinterpret_cast<Step*>(history_ + kVectors * columns_); }

  template <typename Use>
  __device__ void own(Use use) const {
#pragma unroll 1
    for (int j = p.first_column(); j < p.field.right; j += blockDim.x) use(j - p.field.left, j);
  }

  // Of all threads the first one's part.
  __device__ double missing_mass(double total) const {
    if (!p.neither) return 0;
    total = p.team.sum(total);
    return p.team.leads() ? fabs(total - p.mass()) : 0;
  }

  // c, d, the gradient in res, and the same of t.
  __device__ __forceinline__ void prepare(const T* u, const T* v, T t) {
    double total = 0, excess = 0;
    own([&](int k, int j) {
      const T weight = p.b(j), sum = p.parts.all[j], now = t * sum * v[j];
      const bool active = weight > 0 && now > 0 && weight / (t * sum) < p.s.cap_v()[j];
      sums(k) = sum;
      c(k) = active ? now : T(0);
      res(k) = active ? weight - now : T(0);
      total += now;
      excess += res(k);
    });
#pragma unroll 1
    for (int i = p.field.begin + threadIdx.x; i < p.field.end; i += blockDim.x)
      p.s.w()[i] = p.a(i) > 0 && u[i] < p.s.cap_u()[i] ? 1 / p.a(i) : T(0);
    total = p.team.sum(total);
    if (p.tight_rows && p.tight_cols) {
      excess = p.team.sum(excess) / total;  // 0 but for rounding, which the constant in the system's kernel would multiply
      own([&](int k, int) { res(k) -= T(excess) * c(k); });
    }
    p.down(T(0), [&](T sum, int i, int j) {
      const T entry = t * u[i] * p.K[(i - p.field.begin) * p.m + j] * v[j], others = 1 - entry * p.s.w()[i];
      return sum + (others > 0 ? entry * others : T(0));
    });
    p.parts.publish(p.team, p.field, Sum());
    p.team.sync();
    own([&](int k, int j) {
      const T sum = p.parts.collect(j, p.m, Sum());
      d(k) = !(c(k) > 0) ? T(1) : sum > kTiny * c(k) ? sum : kTiny * c(k);
    });
    if (!p.neither) return;
    p.team.sync();
    p.down(T(0), [&](T sum, int i, int j) {
      return p.s.w()[i] > 0 ? sum : sum + t * u[i] * p.K[(i - p.field.begin) * p.m + j] * v[j];
    });
    p.parts.publish(p.team, p.field, Sum());
    p.team.sync();
    double out = 0;
    own([&](int k, int j) {
      const T sum = p.parts.collect(j, p.m, Sum());
      outside(k) = c(k) > 0 ? sum : T(0);
      out += sum;
    });
    outside_total_ = p.team.sum(out);
    right_t_ = p.mass() - total;
    d_t_ = outside_total_ > 1e-6 * total ? outside_total_ : 1e-6 * total;
  }

  // The step at its first length, pending, if it rises.
  __device__ __forceinline__ void begin(T step_t, T& next_t) {
    double shift = 0, slope = 0, total = 0;
    if (p.tight_rows && p.tight_cols) {
      own([&](int k, int) { shift += double(c(k)) * x(k), total += c(k); });
      shift = p.team.sum(shift) / p.team.sum(total);
    }
    own([&](int k, int j) {
      T step = c(k) > 0 ? x(k) - T(shift) : T(0);
      step = step > kReach ? kReach : step < -kReach ? -kReach : step;
      x(k) = step;
      slope += double(x(k)) * (c(k) > 0 ? p.b(j) - c(k) : T(0));
    });
    step_t = step_t > kReach ? kReach : step_t < -kReach ? -kReach : step_t;
    slope = p.team.sum(slope) + double(step_t) * right_t_;
    if (!(slope > 0)) {
      own([&](int k, int j) { p.parts.all[j] = sums(k); });
      useless_ = true;
      return;
    }
    trials_ = 1;
    next_t = p.t * exp(step_t);
    if (threadIdx.x == 0) pending_step() = {T(slope), T(1), p.t, step_t};
    own([&](int k, int j) { p.team.put(&p.s.v(p.turn ^ 1)[j], moved(k, j, T(1), p.s.v(p.turn)[j])); });
  }

  __device__ __forceinline__ T moved(int k, int j, T length, T from) const {
    const T next = from * exp(length * x(k)), cap = p.s.cap_v()[j];
    return next >= cap ? cap : next;
  }
};

}  // namespace transphere
