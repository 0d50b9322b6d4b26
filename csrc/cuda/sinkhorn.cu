// One launch for all problems, whatever they take. A problem has a block to itself, with its vectors and, for the forward, its K in shared
// memory; where they do not fit, a team of blocks, with its vectors in a workspace and K in the plan's place. Formulas: csrc/sinkhorn.h.
#include "sinkhorn.h"

#include "cuda/sinkhorn_backward.cuh"
#include "cuda/sinkhorn_solve.cuh"

namespace transphere {
namespace {

constexpr int64_t kTeamBytes = 128 << 10;  // of the matrix, for each block of a team

template <typename Job>
__global__ void __launch_bounds__(kSinkhornThreads, 1) alone(Job job, int64_t count) {
  using A = typename Job::Arithmetic;
  TS_DYNAMIC_SHARED(char, shared);
  const int n = int(job.q.n), m = int(job.q.m);
  Scratch<A, false>* const scratch = reinterpret_cast<Scratch<A, false>*>(shared);
  const Field<A, false> field(n, m, 0, 1);
  const typename Job::Vectors s{shared + sizeof(Scratch<A, false>), n, m};
  A* const part = reinterpret_cast<A*>(s.base + Job::Vectors::bytes(n, m));
  Team<false> team(0, 1, scratch->parts, nullptr);
  for (int64_t problem = blockIdx.x; problem < count; problem += gridDim.x) {
    job.run(problem, team, field, s, Parts<A>{part, part, field.groups}, reinterpret_cast<typename Job::Matrix*>(part + field.groups * m), scratch);
    __syncthreads();
  }
}

// Of one team's vectors and sums.
template <typename Job>
__host__ __device__ int64_t team_bytes(int64_t n, int64_t m, int size) {
  return (Job::Vectors::bytes(n, m) + size * m * int64_t(sizeof(typename Job::Arithmetic)) + 7) / 8 * 8;
}

template <typename Job>
__global__ void __launch_bounds__(kSinkhornThreads, 1) together(Job job, int64_t count, int size, char* workspace) {
  using A = typename Job::Arithmetic;
  TS_DYNAMIC_SHARED(char, shared);
  const int n = int(job.q.n), m = int(job.q.m), rank = int(blockIdx.x) % size, index = int(blockIdx.x) / size, teams = int(gridDim.x) / size;
  Scratch<A, true>* const scratch = reinterpret_cast<Scratch<A, true>*>(shared);
  const Field<A, true> field(n, m, rank, size);
  const typename Job::Vectors s{workspace + teams * sizeof(Meeting) + index * team_bytes<Job>(n, m, size), n, m};
  A* const all = reinterpret_cast<A*>(s.base + Job::Vectors::bytes(n, m));
  A* const own = field.panels > 1 ? all + rank * m : reinterpret_cast<A*>(shared + sizeof(Scratch<A, true>));
  Team<true> team(rank, size, scratch->parts, reinterpret_cast<Meeting*>(workspace) + index);
  for (int64_t problem = index; problem < count; problem += teams) {
    job.run(problem, team, field, s, Parts<A>{own, all, size}, nullptr, scratch);
    team.sync();
  }
}

// How problems lie over the device. All but the number of teams follows from the shape alone, so that no bit depends on the neighbours.
struct Form {
  int threads = 0, team = 0, teams = 0;  // team: its blocks, or 0 for `alone`
  int64_t shared = 0, workspace = 0;     // bytes
};

int64_t power_of_2_over(int64_t x, int64_t most) {
  int64_t power = 1;
  while (power < x && power < most) power *= 2;
  return power;
}

// The shape of a block of either kind for so many rows: warps that lie side by side over the columns, and groups below each other.
template <typename A, bool Many>
struct Block {
  int64_t side, groups;
  Block(int64_t rows, int64_t m) {
    constexpr int R = Tile<A, Many>::kRows, width = Field<A, Many>::width();
    side = power_of_2_over((m + width - 1) / width, kSinkhornWarps);
    groups = power_of_2_over((rows + R - 1) / R, kSinkhornWarps / side);
  }
  int threads() const { return int(32 * side * groups); }
  int64_t part(int64_t m) const { return Many && m > side * Field<A, Many>::width() ? 0 : groups * m * int64_t(sizeof(A)); }  // bytes
};

template <typename Job>
cudaError_t choose(int64_t n, int64_t m, int64_t count, Form& form) {
  using A = typename Job::Arithmetic;
  int device, most_shared, processors;
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  if (const cudaError_t error = cudaDeviceGetAttribute(&most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device)) return error;
  if (const cudaError_t error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device)) return error;
  const int64_t matrix = n * m * int64_t(sizeof(typename Job::Matrix));

  const Block<A, false> block(n, m);
  form.threads = block.threads();
  form.shared = int64_t(sizeof(Scratch<A, false>)) + Job::Vectors::bytes(n, m) + block.part(m) + (Job::kMatrixOnChip ? matrix : 0);
  if (form.shared <= most_shared && (Job::kMatrixOnChip || matrix <= 2 * kTeamBytes)) return cudaSuccess;

  int64_t size = 1;
  while (2 * size <= std::min({n, int64_t(processors), int64_t(kMostBlocks), matrix / kTeamBytes})) size *= 2;
  const Block<A, true> member((n + size - 1) / size, m);
  form.threads = member.threads();
  form.shared = int64_t(sizeof(Scratch<A, true>)) + member.part(m);
  form.team = int(size);
  int resident;
  if (const cudaError_t error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, together<Job>, form.threads, size_t(form.shared)))
    return error;
  form.teams = int(std::max<int64_t>(1, std::min<int64_t>(count, int64_t(resident) * processors / size)));
  form.workspace = form.teams * (int64_t(sizeof(Meeting)) + team_bytes<Job>(n, m, form.team));
  return cudaSuccess;
}

template <typename Job>
cudaError_t launch_all(const Job& job, int64_t count, void* workspace, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  Form form;
  if (const cudaError_t error = choose<Job>(job.q.n, job.q.m, count, form)) return error;
  if (form.team == 0)
    return TS_LAUNCH(alone<Job>, unsigned(std::min<int64_t>(count, 1 << 20)), form.threads, size_t(form.shared), stream, job, count);
  if (const cudaError_t error = cudaMemsetAsync(workspace, 0, size_t(form.teams) * sizeof(Meeting), stream)) return error;
  return TS_LAUNCH_TOGETHER(together<Job>, form.teams * form.team, form.threads, size_t(form.shared), stream, job, count, form.team,
                            static_cast<char*>(workspace));
}

}  // namespace

template <typename T>
cudaError_t sinkhorn_workspace(int64_t n, int64_t m, int64_t count, int64_t* bytes) {
  Form form;
  const cudaError_t error = choose<Solve<T>>(n, m, count, form);
  *bytes = form.workspace;
  return error;
}

template <typename T>
cudaError_t sinkhorn_cuda(const SinkhornProblems<T>& q, int64_t count, void* workspace, cudaStream_t stream) {
  return launch_all(Solve<T>{q}, count, workspace, stream);
}

template <typename T>
cudaError_t sinkhorn_backward_workspace(int64_t n, int64_t m, int64_t count, int64_t* bytes) {
  Form form;
  const cudaError_t error = choose<Differentiate<T>>(n, m, count, form);
  *bytes = form.workspace;
  return error;
}

template <typename T>
cudaError_t sinkhorn_backward_cuda(const SinkhornGradients<T>& q, int64_t count, void* workspace, cudaStream_t stream) {
  return launch_all(Differentiate<T>{q}, count, workspace, stream);
}

#define TS_INSTANTIATE(T)                                                                                      \
  template cudaError_t sinkhorn_workspace<T>(int64_t, int64_t, int64_t, int64_t*);                             \
  template cudaError_t sinkhorn_cuda(const SinkhornProblems<T>&, int64_t, void*, cudaStream_t);                \
  template cudaError_t sinkhorn_backward_workspace<T>(int64_t, int64_t, int64_t, int64_t*);                    \
  template cudaError_t sinkhorn_backward_cuda(const SinkhornGradients<T>&, int64_t, void*, cudaStream_t);
TS_INSTANTIATE(float)
TS_INSTANTIATE(double)

}  // namespace transphere
