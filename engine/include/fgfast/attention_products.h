// The two products of attention in bfloat16, which each kind of processor computes in its own way, on operands that
// all of them read from the same memory. Between them attention_bf16.cc computes the weights.
#pragma once

#include <cstdint>

#include "fgfast/attention.h"

// Compilers that know the instructions: GCC from 11, Clang from 12. Older ones build the ops without these.
#if defined(__x86_64__) && defined(_OPENMP) && !defined(_MSC_VER)
#if defined(__clang__) ? __clang_major__ >= 12 : defined(__GNUC__) && __GNUC__ >= 11
#define FGFAST_BF16_COMPILES
#endif
#endif

namespace fgfast {

// A word is two bfloat16 that are multiplied with two others and added to one sum: the lower half comes first.
using Word = uint32_t;

constexpr int64_t kQueries = 32;                // queries at once: two tiles of AMX
constexpr int64_t kLane = 16;                   // columns, keys or dimensions, side by side
constexpr int64_t kPairs = 16;                  // words of a tile of AMX, one below the other
constexpr int64_t kTileWords = kPairs * kLane;  // words in such a tile
constexpr int64_t kTileDepth = 2 * kPairs;      // what a tile sums over

struct AttentionProducts {
  const char* name;
  // A thread calls them before its products and after.
  void (*begin)();
  void (*end)();
  // scores (kQueries x stride) = q (kQueries x depth) times `blocks` blocks of kLane columns; a block has a tile for
  // every kTileDepth of depth, which is a multiple of it.
  void (*score)(const Bfloat16* q, int64_t depth, const Word* columns, int64_t blocks, float* scores, int64_t stride);
  // sums (kQueries x size) += weights (kQueries x stride) times `groups` groups of kTileDepth keys; a group has a tile
  // for every kLane of size, which is a multiple of it.
  void (*mix)(const Bfloat16* weights, int64_t stride, const Word* values, int64_t groups, float* sums, int64_t size);
};

// The fastest that this processor has, or null where this build has none for it. See Bfloat16AttendsBy.
const AttentionProducts* Bfloat16Products();

// By AMX's tiles; null where the build, the processor or the system has none. The system is asked for them once.
const AttentionProducts* TileProducts();

}  // namespace fgfast
