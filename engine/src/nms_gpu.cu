#include "fgfast/cuda.h"
#include "fgfast/nms.h"

// First all pairs, in blocks of 64 x 64: a bit for each box that a better one would suppress. Then one block walks down
// the order and strikes out what the kept ones suppress.
namespace fgfast::cuda {
namespace {

constexpr int kBits = 64;               // boxes in a word
constexpr int64_t kMostRows = 1 << 15;  // of words, in the second dimension of a grid
constexpr int kSweepers = 256;          // threads that strike out

__device__ bool IsIndex(const Nms& nms, int64_t index) { return index >= 0 && index < nms.count; }

// Which box is n-th in the order. An order that names none is found by Sweep; until then it names the first.
__device__ int64_t IndexAt(const Nms& nms, int64_t n) { return IsIndex(nms, nms.order[n]) ? nms.order[n] : 0; }

__global__ void Compare(Nms nms, int64_t first_row, uint64_t* hits) {
  const int64_t row = first_row + blockIdx.y, column = blockIdx.x, words = gridDim.x;
  if (column < row) return;  // a box suppresses only what comes after it
  __shared__ float rivals[kBits][4];
  __shared__ int64_t rival_classes[kBits];
  const int64_t rival = column * kBits + threadIdx.x;
  if (rival < nms.count) {
    const int64_t index = IndexAt(nms, rival);
    for (int n = 0; n < 4; ++n) rivals[threadIdx.x][n] = nms.boxes[index * 4 + n];
    rival_classes[threadIdx.x] = nms.classes ? nms.classes[index] : 0;
  }
  __syncthreads();
  const int64_t own = row * kBits + threadIdx.x;
  if (own >= nms.count) return;
  const int64_t index = IndexAt(nms, own);
  const int64_t own_class = nms.classes ? nms.classes[index] : 0;
  const float box[4] = {nms.boxes[index * 4], nms.boxes[index * 4 + 1], nms.boxes[index * 4 + 2],
                        nms.boxes[index * 4 + 3]};
  uint64_t word = 0;
  for (int n = 0; n < kBits; ++n) {
    const int64_t other = column * kBits + n;
    if (other <= own || other >= nms.count || rival_classes[n] != own_class) continue;
    if (Overlap(box, rivals[n]) > nms.threshold) word |= uint64_t{1} << n;
  }
  hits[own * words + column] = word;
}

__global__ void Sweep(Nms nms, int64_t words, const uint64_t* hits, int64_t* kept, int64_t* kept_count) {
  extern __shared__ uint64_t struck[];
  __shared__ int wrong;
  if (threadIdx.x == 0) wrong = 0;
  __syncthreads();
  for (int64_t n = threadIdx.x; n < words; n += blockDim.x) struck[n] = 0;
  for (int64_t n = threadIdx.x; n < nms.count; n += blockDim.x) {
    if (!IsIndex(nms, nms.order[n])) wrong = 1;
  }
  __syncthreads();
  if (wrong) {
    if (threadIdx.x == 0) *kept_count = kWrongOrder;
    return;
  }
  int64_t count = 0;
  for (int64_t own = 0; own < nms.count && count < nms.limit; ++own) {
    // The same for all threads: `struck` was last written before a barrier.
    if (struck[own / kBits] >> (own % kBits) & 1) continue;
    if (threadIdx.x == 0) kept[count] = nms.order[own];
    ++count;
    __syncthreads();
    for (int64_t n = own / kBits + threadIdx.x; n < words; n += blockDim.x) struck[n] |= hits[own * words + n];
    __syncthreads();
  }
  if (threadIdx.x == 0) *kept_count = count;
}

}  // namespace

void Suppress(const Nms& nms, const Place& place, uint64_t* workspace, int64_t* kept, int64_t* kept_count) {
  const Current current(place.device);
  const cudaStream_t stream = StreamOf(place);
  const int64_t words = NmsWords(nms.count);
  for (int64_t from = 0; from < words; from += kMostRows) {
    const int64_t rows = words - from < kMostRows ? words - from : kMostRows;
    const dim3 grid(static_cast<unsigned int>(words), static_cast<unsigned int>(rows));
    Compare<<<grid, kBits, 0, stream>>>(nms, from, workspace);
  }
  Sweep<<<1, kSweepers, words * sizeof(uint64_t), stream>>>(nms, words, workspace, kept, kept_count);
  Check(cudaGetLastError(), "nms on the GPU");
}

}  // namespace fgfast::cuda
