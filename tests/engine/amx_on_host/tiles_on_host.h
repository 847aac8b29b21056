// AMX's tiles for processors without them: each instruction by its definition (Intel 64 and IA-32 Architectures
// Software Developer's Manual, volume 2), one tile register per thread. A mock: it shows that the right numbers are
// multiplied, not how fast.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#define FGFAST_TILES

namespace tiles_on_host {

struct Tile {
  uint16_t row_bytes = 0;
  uint8_t rows = 0;
  uint8_t memory[16][64] = {};
};

inline thread_local Tile tiles[8];
inline thread_local bool configured = false;

inline Tile& At(int tile) {
  if (!configured || tile < 0 || tile > 7) std::abort();  // an illegal instruction
  return tiles[tile];
}

inline void LoadConfig(const void* config) {
  const auto* bytes = static_cast<const uint8_t*>(config);
  if (bytes[0] != 1 || bytes[1] != 0) std::abort();
  for (int n = 2; n < 16; ++n) {
    if (bytes[n] != 0) std::abort();
  }
  configured = true;
  for (int n = 0; n < 8; ++n) {
    Tile tile;
    std::memcpy(&tile.row_bytes, bytes + 16 + 2 * n, 2);
    tile.rows = bytes[48 + n];
    if (tile.row_bytes > 64 || tile.rows > 16) std::abort();
    tiles[n] = tile;
  }
}

inline void Release() { configured = false; }

inline void Zero(int tile) { std::memset(At(tile).memory, 0, sizeof(Tile::memory)); }

inline void Load(int tile, const void* from, int64_t stride) {
  Zero(tile);
  for (int row = 0; row < At(tile).rows; ++row) {
    std::memcpy(tiles[tile].memory[row], static_cast<const uint8_t*>(from) + row * stride, tiles[tile].row_bytes);
  }
}

inline void Store(int tile, void* to, int64_t stride) {
  for (int row = 0; row < At(tile).rows; ++row) {
    std::memcpy(static_cast<uint8_t*>(to) + row * stride, tiles[tile].memory[row], tiles[tile].row_bytes);
  }
}

inline float Upper(const uint8_t* half) {
  uint16_t bits;
  std::memcpy(&bits, half, 2);
  const uint32_t whole = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &whole, 4);
  return value;
}

// sums += a . b, by pairs.
inline void Multiply(int sums, int a, int b) {
  const int pairs = At(a).row_bytes / 4, columns = At(b).row_bytes / 4;
  if (At(b).rows != pairs || At(sums).rows != At(a).rows || At(sums).row_bytes != At(b).row_bytes) std::abort();
  for (int row = 0; row < tiles[a].rows; ++row) {
    for (int column = 0; column < columns; ++column) {
      float sum;
      std::memcpy(&sum, tiles[sums].memory[row] + 4 * column, 4);
      for (int pair = 0; pair < pairs; ++pair) {
        for (int half = 0; half < 2; ++half) {
          sum = std::fma(Upper(tiles[a].memory[row] + 4 * pair + 2 * half),
                         Upper(tiles[b].memory[pair] + 4 * column + 2 * half), sum);
        }
      }
      std::memcpy(tiles[sums].memory[row] + 4 * column, &sum, 4);
    }
  }
}

}  // namespace tiles_on_host

#define _tile_loadconfig(config) tiles_on_host::LoadConfig(config)
#define _tile_release() tiles_on_host::Release()
#define _tile_zero(tile) tiles_on_host::Zero(tile)
#define _tile_loadd(tile, from, stride) tiles_on_host::Load(tile, from, stride)
#define _tile_stored(tile, to, stride) tiles_on_host::Store(tile, to, stride)
#define _tile_dpbf16ps(sums, a, b) tiles_on_host::Multiply(sums, a, b)
