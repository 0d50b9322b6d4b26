// How problems lie over the device: the kernels of each span, and which of them a shape gets.
#pragma once
#include "cuda/sinkhorn_field.cuh"

namespace transphere {

template <typename Job>
__global__ void __launch_bounds__(kSinkhornThreads, 1) alone(Job job, int64_t count) {
  using A = typename Job::Arithmetic;
  TS_DYNAMIC_SHARED(char, shared);
  const int n = int(job.q.n), m = int(job.q.m);
  auto* const scratch = reinterpret_cast<Scratch<A, Span::block>*>(shared);
  const Field<A, Span::block> field(n, m, 0, 1);
  const typename Job::Vectors s{shared + sizeof(*scratch), n, m};
  A* const part = reinterpret_cast<A*>(s.base + Job::Vectors::bytes(n, m));
  A* const history = part + field.groups * m;
  auto* const matrix = reinterpret_cast<typename Job::Matrix*>(history + job.history_bytes(m) / sizeof(A));
  Team<Span::block> team(0, 1, &scratch->reductions, nullptr);
  for (int64_t problem = blockIdx.x; problem < count; problem += gridDim.x) {
    job.run(problem, team, field, s, Parts<A, Span::block>{part, part, field.groups}, matrix, history, scratch);
    __syncthreads();
  }
}

template <typename Job>
__global__ void __launch_bounds__(kSinkhornThreads, 1) clustered([[maybe_unused]] Job job, [[maybe_unused]] int64_t count) {
#if TS_CLUSTERS
  using A = typename Job::Arithmetic;
  TS_DYNAMIC_SHARED(char, shared);
  const int n = int(job.q.n), m = int(job.q.m), rank = cluster_rank(), size = cluster_size();
  auto* const scratch = reinterpret_cast<Scratch<A, Span::cluster>*>(shared);
  const Field<A, Span::cluster> field(n, m, rank, size);
  const typename Job::Vectors s{shared + sizeof(*scratch), n, m};
  A* const all = reinterpret_cast<A*>(s.base + Job::Vectors::bytes(n, m));
  A* const own = field.panels > 1 ? all : all + m;
  A* const history = own + field.groups * m;
  auto* const matrix = reinterpret_cast<typename Job::Matrix*>(history + job.history_bytes(field.columns(m, size)) / sizeof(A));
  Team<Span::cluster> team(rank, size, &scratch->reductions, nullptr);
  team.sync();
  for (int64_t problem = blockIdx.x / size; problem < count; problem += gridDim.x / size) {
    job.run(problem, team, field, s, Parts<A, Span::cluster>{own, all, size}, matrix, history, scratch);
    team.sync();
  }
#endif
}

// Of one team's vectors and sums.
template <typename Job>
__host__ __device__ int64_t team_bytes(int64_t n, int64_t m, int size) {
  return (Job::Vectors::bytes(n, m) + size * m * int64_t(sizeof(typename Job::Arithmetic)) + 7) / 8 * 8;
}

template <typename Job>
__global__ void __launch_bounds__(kSinkhornThreads, 1) together(Job job, int64_t count, int size, bool remembers, char* workspace) {
  using A = typename Job::Arithmetic;
  TS_DYNAMIC_SHARED(char, shared);
  const int n = int(job.q.n), m = int(job.q.m);
  const int rank = int(blockIdx.x) % size, index = int(blockIdx.x) / size, teams = int(gridDim.x) / size;
  auto* const scratch = reinterpret_cast<Scratch<A, Span::grid>*>(shared);
  const Field<A, Span::grid> field(n, m, rank, size);
  const typename Job::Vectors s{workspace + teams * sizeof(Meeting) + index * team_bytes<Job>(n, m, size), n, m};
  A* const all = reinterpret_cast<A*>(s.base + Job::Vectors::bytes(n, m));
  A* const part = reinterpret_cast<A*>(shared + sizeof(*scratch));
  A *const own = field.panels > 1 ? all + rank * m : part, *const history = field.panels > 1 ? part : part + field.groups * m;
  Team<Span::grid> team(rank, size, &scratch->reductions, reinterpret_cast<Meeting*>(workspace) + index);
  for (int64_t problem = index; problem < count; problem += teams) {
    job.run(problem, team, field, s, Parts<A, Span::grid>{own, all, size}, nullptr, remembers ? history : nullptr, scratch);
    team.sync();
  }
}

// All but the number of teams follows from the shape and the device alone, so that no bit depends on the neighbours.
struct SinkhornLaunch {
  Span span = Span::block;
  int threads = 0, size = 1, teams = 0;  // size: blocks of a team; teams: of a grid
  int64_t shared = 0, workspace = 0;     // bytes
  bool remembers = true;                 // whether there is room for a history
};

inline int64_t power_of_2_over(int64_t x, int64_t most) {
  int64_t power = 1;
  while (power < x && power < most) power *= 2;
  return power;
}

// A block with so many rows: warps that lie side by side over the columns, and groups below each other (Field).
template <typename A, Span S>
struct Block {
  int64_t rows, side, groups;
  Block(int64_t rows, int64_t m) : rows(rows) {
    constexpr int width = Field<A, S>::width();
    side = power_of_2_over((m + width - 1) / width, kSinkhornWarps);
    groups = power_of_2_over((rows + kRows - 1) / kRows, kSinkhornWarps / side);
  }
  static constexpr int kRows = Tile<A, S>::kRows;
  int threads() const { return int(32 * side * groups); }
  bool panels(int64_t m) const { return m > side * Field<A, S>::width(); }
  bool one_tile(int64_t m) const { return rows <= groups * kRows && !panels(m); }  // for each warp, which keeps it in registers
  // Bytes of the sums down the columns: of each group and, in a cluster, of the block. Panels have one group, which writes the block's.
  int64_t part(int64_t m) const {
    const int64_t of_groups = S != Span::block && panels(m) ? 0 : groups;
    return (of_groups + (S == Span::cluster)) * m * int64_t(sizeof(A));
  }
};

// The least cluster in which each warp has but one tile, of up to 8 blocks; or the least in which all fits, of up to 16.
template <typename Job>
bool choose_cluster(int64_t n, int64_t m, int64_t most_shared, SinkhornLaunch& form) {
  using A = typename Job::Arithmetic;
  for (int size = 2; size <= kMostInCluster && size <= n; size *= 2) {
    const Block<A, Span::cluster> block((n + size - 1) / size, m);
    const int64_t matrix = Job::kMatrixOnChip ? block.rows * m * int64_t(sizeof(typename Job::Matrix)) : 0;
    const int64_t history = Job::history_bytes(Field<A, Span::cluster>::columns(int(m), size));
    const int64_t shared = int64_t(sizeof(Scratch<A, Span::cluster>)) + Job::Vectors::bytes(n, m) + block.part(m) + history + matrix;
    if (shared > most_shared || !has_clusters(unsigned(size), clustered<Job>, block.threads(), size_t(shared))) continue;
    if (size > 8 && form.span == Span::cluster) break;
    form.span = Span::cluster, form.size = size, form.threads = block.threads(), form.shared = shared;
    if (block.one_tile(m)) break;
  }
  return form.span == Span::cluster;
}

template <typename Job>
cudaError_t choose(int64_t n, int64_t m, int64_t count, SinkhornLaunch& form) {
  using A = typename Job::Arithmetic;
  constexpr int64_t kTeamBytes = 32 << 10;  // of the matrix, for each block of a grid's team: its registers hold them
  int device, most_shared, processors, major;
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  if (const cudaError_t error = cudaDeviceGetAttribute(&most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device)) return error;
  if (const cudaError_t error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device)) return error;
  if (const cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device)) return error;
  const int64_t matrix = n * m * int64_t(sizeof(typename Job::Matrix));

  // A matrix that stays in device memory is small enough for one block if its caches hold it, or if there are no clusters.
  const int64_t most_matrix = Job::kMatrixOnChip ? int64_t(most_shared) : (major >= 9 ? 2 : 8) * kTeamBytes;
  const Block<A, Span::block> block(n, m);
  form.threads = block.threads();
  form.shared = int64_t(sizeof(Scratch<A, Span::block>)) + Job::Vectors::bytes(n, m) + block.part(m) + Job::history_bytes(m);
  if (Job::kMatrixOnChip) form.shared += matrix;
  if (form.shared <= most_shared && matrix <= most_matrix) return cudaSuccess;
  if (major >= 9 && choose_cluster<Job>(n, m, most_shared, form)) return cudaSuccess;

  form.span = Span::grid;
  while (2 * form.size <= std::min({n, int64_t(processors), int64_t(kMostInGrid), matrix / kTeamBytes})) form.size *= 2;
  const Block<A, Span::grid> member((n + form.size - 1) / form.size, m);
  form.threads = member.threads();
  form.shared = int64_t(sizeof(Scratch<A, Span::grid>)) + member.part(m);
  const int64_t history = Job::history_bytes(Field<A, Span::grid>::columns(int(m), form.size));
  form.remembers = history > 0 && form.shared + history <= most_shared;
  if (form.remembers) form.shared += history;
  int resident;
  if (const cudaError_t error = allow({true, 0}, together<Job>, size_t(form.shared))) return error;  // or none would fit
  if (const cudaError_t error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, together<Job>, form.threads, size_t(form.shared)))
    return error;
  form.teams = int(std::max<int64_t>(1, std::min<int64_t>(count, int64_t(resident) * processors / form.size)));
  form.workspace = form.teams * (int64_t(sizeof(Meeting)) + team_bytes<Job>(n, m, form.size));
  return cudaSuccess;
}

template <typename Job>
cudaError_t launch_all(const Job& job, int64_t count, void* workspace, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  SinkhornLaunch form;
  if (const cudaError_t error = choose<Job>(job.q.n, job.q.m, count, form)) return error;
  const unsigned each = unsigned(std::min<int64_t>(count, 1 << 20)) * unsigned(form.size);
  if (form.span == Span::block) return TS_LAUNCH(alone<Job>, each, form.threads, size_t(form.shared), stream, job, count);
  if (form.span == Span::cluster)
    return TS_LAUNCH_CLUSTERS(form.size, clustered<Job>, each, form.threads, size_t(form.shared), stream, job, count);
  if (const cudaError_t error = cudaMemsetAsync(workspace, 0, size_t(form.teams) * sizeof(Meeting), stream)) return error;
  return TS_LAUNCH_TOGETHER(together<Job>, form.teams * form.size, form.threads, size_t(form.shared), stream, job, count, form.size,
                            form.remembers, static_cast<char*>(workspace));
}

}  // namespace transphere
