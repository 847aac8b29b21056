#include "fgfast/bilinear.h"
#include "fgfast/cuda.h"
#include "fgfast/mask_post.h"

// A thread makes a pixel from the sixteen logits it depends on, in the order of the CPU's loops and with the same
// roundings; what it reads comes from the cache. A block counts in its own memory first.
namespace fgfast::cuda {
namespace {

constexpr int kWide = 32,
              kHigh = 8;                 // threads of a block: a warp is part of a row
constexpr int64_t kMostMasks = 1 << 15;  // in the third dimension of a grid
constexpr int64_t kMostBlocks = 65535;   // in the second one

using Number = unsigned long long;  // what CUDA's atomic functions know; all facts are at least 0

__device__ float Mix(float first, float first_weight, float second, float second_weight) {
  return __fmaf_rn(first, first_weight, __fmul_rn(second, second_weight));
}

// The square at row `y`, whose taps are `rows`, and the columns that `columns` stands for.
__device__ float SquareAt(const float* logits, int64_t low, const Taps& rows, const Taps& columns) {
  const float *above = logits + rows.first * low, *below = logits + rows.second * low;
  const float first = Mix(above[columns.first], columns.first_weight, above[columns.second], columns.second_weight);
  const float second = Mix(below[columns.first], columns.first_weight, below[columns.second], columns.second_weight);
  return Mix(first, rows.first_weight, second, rows.second_weight);
}

__device__ float LogitAt(const float* logits, const MaskSizes& sizes, int64_t x, int64_t y) {
  const Taps rows = TapsOf(y, sizes.resized_height, sizes.height);
  const Taps columns = TapsOf(x, sizes.resized_width, sizes.width);
  const Taps left = TapsOf(columns.first, sizes.low, sizes.side);
  const Taps right = TapsOf(columns.second, sizes.low, sizes.side);
  float found[2];
  for (int n = 0; n < 2; ++n) {
    const Taps row = TapsOf(n ? rows.second : rows.first, sizes.low, sizes.side);
    found[n] = Mix(SquareAt(logits, sizes.low, row, left), columns.first_weight,
                   SquareAt(logits, sizes.low, row, right), columns.second_weight);
  }
  return Mix(found[0], rows.first_weight, found[1], rows.second_weight);
}

__global__ void Begin(int64_t count, MaskSizes sizes, int64_t* facts) {
  const int64_t mask = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (mask >= count) return;
  int64_t* fact = facts + mask * kMaskFacts;
  fact[0] = sizes.width, fact[1] = sizes.height;
  for (int64_t n = 2; n < kMaskFacts; ++n) fact[n] = 0;
}

__global__ void Make(const float* logits, MaskSizes sizes, uint8_t* bits, int64_t* facts) {
  __shared__ Number found[kMaskFacts];
  const int64_t x0 = int64_t{blockIdx.x} * kWide, x = x0 + threadIdx.x;
  const int64_t y = int64_t{blockIdx.y} * kHigh + threadIdx.y, mask = blockIdx.z;
  const int thread = threadIdx.y * kWide + threadIdx.x;
  if (thread < kMaskFacts) found[thread] = thread < 2 ? ~Number{0} : 0;
  __syncthreads();
  const bool there = x < sizes.width && y < sizes.height;
  const float logit = there ? LogitAt(logits + mask * sizes.low * sizes.low, sizes, x, y) : 0.0f;
  if (there) bits[(mask * sizes.height + y) * sizes.width + x] = logit > 0.0f;
  const unsigned set = __ballot_sync(~0u, there && logit > 0.0f);
  const unsigned surely = __ballot_sync(~0u, there && logit > kStabilityOffset);
  const unsigned perhaps = __ballot_sync(~0u, there && logit > -kStabilityOffset);
  if (threadIdx.x == 0 && set) {
    atomicMin(&found[0], static_cast<Number>(x0 + __ffs(set) - 1));
    atomicMin(&found[1], static_cast<Number>(y));
    atomicMax(&found[2], static_cast<Number>(x0 + 32 - __clz(set)));
    atomicMax(&found[3], static_cast<Number>(y + 1));
    atomicAdd(&found[4], static_cast<Number>(__popc(set)));
    atomicAdd(&found[5], static_cast<Number>(__popc(surely)));
  }
  if (threadIdx.x == 0 && perhaps) atomicAdd(&found[6], static_cast<Number>(__popc(perhaps)));
  __syncthreads();
  if (thread >= kMaskFacts) return;
  Number* fact = reinterpret_cast<Number*>(facts + mask * kMaskFacts + thread);
  if (thread < 2) atomicMin(fact, found[thread]);
  if (thread == 2 || thread == 3) atomicMax(fact, found[thread]);
  if (thread > 3 && found[thread]) atomicAdd(fact, found[thread]);
}

__global__ void End(int64_t count, int64_t* facts) {
  const int64_t mask = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (mask >= count) return;
  int64_t* fact = facts + mask * kMaskFacts;
  if (fact[4] == 0) fact[0] = fact[1] = 0;
}

}  // namespace

void MaskPost(const float* logits, int64_t count, const MaskSizes& sizes, const Place& place, uint8_t* bits,
              int64_t* facts) {
  if (sizes.height > int64_t{kHigh} * kMostBlocks) {
    throw std::invalid_argument("bits must have at most " + std::to_string(int64_t{kHigh} * kMostBlocks) +
                                " rows on a GPU, not " + std::to_string(sizes.height));
  }
  const Current current(place.device);
  const cudaStream_t stream = StreamOf(place);
  Begin<<<Blocks(count, 256), 256, 0, stream>>>(count, sizes, facts);
  for (int64_t from = 0; from < count; from += kMostMasks) {
    const int64_t part = count - from < kMostMasks ? count - from : kMostMasks;
    const dim3 grid(Blocks(sizes.width, kWide), Blocks(sizes.height, kHigh), static_cast<unsigned int>(part));
    Make<<<grid, dim3(kWide, kHigh), 0, stream>>>(logits + from * sizes.low * sizes.low, sizes,
                                                  bits + from * sizes.height * sizes.width, facts + from * kMaskFacts);
  }
  End<<<Blocks(count, 256), 256, 0, stream>>>(count, facts);
  Check(cudaGetLastError(), "mask_post on the GPU");
}

}  // namespace fgfast::cuda
