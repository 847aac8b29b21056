// Attention with decomposed relative positions within square windows, as SAM's image encoder has it.
#pragma once

#include <cstdint>

namespace fgfast {

// The upper half of a float32: sign, exponent and seven bits of the fraction.
using Bfloat16 = uint16_t;

// All arrays are row-major and without gaps. A place is (y, x) of a window, y * side + x.
template <class T>
struct AttentionOf {
  const T* q;               // batch x tokens x heads x size, unscaled
  const T* k;               // the same
  const T* v;               // the same
  const float* rel_pos_h;   // (2 side - 1) x size; row "query's y - key's y + side - 1"
  const float* rel_pos_w;   // (2 side - 1) x size; the same for x
  const int64_t* token_at;  // windows x side x side; `tokens` means padding: a key, but no query
  const T* padding_k;       // heads x size, of all padding places
  const T* padding_v;       // heads x size
  int64_t batch;
  int64_t tokens;
  int64_t heads;
  int64_t size;  // a multiple of kAttentionStep
  int64_t windows;
  int64_t side;
};

using Attention = AttentionOf<float>;
using Bfloat16Attention = AttentionOf<Bfloat16>;

// Floats in a vector register of AVX-512.
constexpr int64_t kAttentionStep = 16;

// Whether this build and this processor have it in float32: x86 with AVX-512, compiled with OpenMP.
bool AttendsHere();

// What multiplies bfloat16 on this processor: "AMX", "AVX-512 BF16", or "" where nothing of this build does. The
// environment's FGFAST_ATTENTION=avx512 leaves AMX out, for comparisons.
const char* Bfloat16AttendsBy();

// Writes batch x tokens x heads x size: softmax(q.k / sqrt(size) + q.rel_pos_h + q.rel_pos_w) v over the keys of each
// query's window. Every token must have one place. In bfloat16 the tables and the weights are rounded to it before they
// are multiplied; all sums are float32.
void Attend(const Attention& attention, int threads, float* out);
void Attend(const Bfloat16Attention& attention, int threads, Bfloat16* out);

}  // namespace fgfast
