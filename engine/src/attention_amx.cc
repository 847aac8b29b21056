#include "fgfast/attention_products.h"

#if defined(FGFAST_BF16_COMPILES) && defined(__linux__)

#ifdef FGFAST_TILES_ON_HOST
#include "tiles_on_host.h"
#else
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define FGFAST_TILES __attribute__((target("amx-tile,amx-bf16")))
#endif

// Sums are in tiles 0 to 3: those of the queries' first half in 0 and 1, of their second half in 2 and 3. Factors of
// the queries are in 4 and 5, those of columns in 6 and 7. A tile has 16 rows of 64 bytes.
namespace fgfast {
namespace {

constexpr int64_t kRow = 64;  // bytes in a row of a tile

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

FGFAST_TILES void Begin() {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = kRow;
    config.rows[tile] = kPairs;
  }
  _tile_loadconfig(&config);
}

FGFAST_TILES void End() { _tile_release(); }

FGFAST_TILES void Score(const Bfloat16* q, int64_t depth, const Word* columns, int64_t blocks, float* scores,
                        int64_t stride) {
  const int64_t q_row = depth * static_cast<int64_t>(sizeof(Bfloat16)), block = depth / kTileDepth * kTileWords;
  const int64_t row = stride * static_cast<int64_t>(sizeof(float));
  int64_t n = 0;
  for (; n + 2 <= blocks; n += 2) {
    const Word* const left = columns + n * block;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t d = 0; d < depth; d += kTileDepth) {
      _tile_loadd(4, q + d, q_row);
      _tile_loadd(5, q + kQueries / 2 * depth + d, q_row);
      _tile_loadd(6, left + d / kTileDepth * kTileWords, kRow);
      _tile_loadd(7, left + block + d / kTileDepth * kTileWords, kRow);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    float* const to = scores + n * kLane;
    _tile_stored(0, to, row);
    _tile_stored(1, to + kLane, row);
    _tile_stored(2, to + kQueries / 2 * stride, row);
    _tile_stored(3, to + kQueries / 2 * stride + kLane, row);
  }
  if (n == blocks) return;
  _tile_zero(0);
  _tile_zero(2);
  for (int64_t d = 0; d < depth; d += kTileDepth) {
    _tile_loadd(4, q + d, q_row);
    _tile_loadd(5, q + kQueries / 2 * depth + d, q_row);
    _tile_loadd(6, columns + n * block + d / kTileDepth * kTileWords, kRow);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
  }
  _tile_stored(0, scores + n * kLane, row);
  _tile_stored(2, scores + kQueries / 2 * stride + n * kLane, row);
}

FGFAST_TILES void Mix(const Bfloat16* weights, int64_t stride, const Word* values, int64_t groups, float* sums,
                      int64_t size) {
  const int64_t weights_row = stride * static_cast<int64_t>(sizeof(Bfloat16)), group = size / kLane * kTileWords;
  const int64_t row = size * static_cast<int64_t>(sizeof(float));
  for (int64_t d = 0; d < size; d += 2 * kLane) {
    const bool two = d + kLane < size;
    float* const upper = sums + d;
    float* const lower = sums + kQueries / 2 * size + d;
    _tile_loadd(0, upper, row);
    _tile_loadd(2, lower, row);
    if (two) {
      _tile_loadd(1, upper + kLane, row);
      _tile_loadd(3, lower + kLane, row);
    }
    for (int64_t n = 0; n < groups; ++n) {
      const Word* const tile = values + n * group + d / kLane * kTileWords;
      _tile_loadd(4, weights + n * kTileDepth, weights_row);
      _tile_loadd(5, weights + kQueries / 2 * stride + n * kTileDepth, weights_row);
      _tile_loadd(6, tile, kRow);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(2, 5, 6);
      if (two) {
        _tile_loadd(7, tile + kTileWords, kRow);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, upper, row);
    _tile_stored(2, lower, row);
    if (two) {
      _tile_stored(1, upper + kLane, row);
      _tile_stored(3, lower + kLane, row);
    }
  }
}

// Linux hands out the tiles' registers, 8 KiB a thread, to processes that ask for them (arch/x86/kernel/fpu/xstate.c).
bool TilesHere() {
#ifdef FGFAST_TILES_ON_HOST
  return true;
#else
  constexpr int kRequest = 0x1023, kTileData = 18;        // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;  // CPUID 7.0, EDX; __builtin_cpu_supports is not everywhere
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kBf16) == 0 || (d & kTile) == 0) return false;
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#endif
}

constexpr AttentionProducts kProducts{"AMX", Begin, End, Score, Mix};

}  // namespace

const AttentionProducts* TileProducts() {
  static const bool here = TilesHere();
  return here ? &kProducts : nullptr;
}

}  // namespace fgfast

#else

namespace fgfast {

const AttentionProducts* TileProducts() { return nullptr; }

}  // namespace fgfast

#endif
