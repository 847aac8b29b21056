// Attention with decomposed relative positions within square windows, as SAM's image encoder has it, in float32.
#pragma once

#include <cstdint>

namespace fgfast {

// All arrays are row-major and without gaps. A place is (y, x) of a window, y * side + x.
struct Attention {
  const float* q;           // batch x tokens x heads x size, unscaled
  const float* k;           // the same
  const float* v;           // the same
  const float* rel_pos_h;   // (2 side - 1) x size; row "query's y - key's y + side - 1"
  const float* rel_pos_w;   // (2 side - 1) x size; the same for x
  const int64_t* token_at;  // windows x side x side; `tokens` means padding: a key, but no query
  const float* padding_k;   // heads x size, of all padding places
  const float* padding_v;   // heads x size
  int64_t batch;
  int64_t tokens;
  int64_t heads;
  int64_t size;  // a multiple of kAttentionStep
  int64_t windows;
  int64_t side;
};

// Floats in a vector register of AVX-512.
constexpr int64_t kAttentionStep = 16;

// Whether this build and this processor have it: x86 with AVX-512, compiled with OpenMP.
bool AttendsHere();

// Writes batch x tokens x heads x size: softmax(q.k / sqrt(size) + q.rel_pos_h + q.rel_pos_w) v over the keys of each
// query's window. Every token must have one place.
void Attend(const Attention& attention, int threads, float* out);

}  // namespace fgfast
