// Attention in bfloat16 by the tiles of tiles_on_host.h, for tests/engine/test_amx_on_host.py.
#include "fgfast/attention.h"
#include "fgfast/window_attention.h"

extern "C" const char* by() { return fgfast::Bfloat16AttendsBy(); }

extern "C" void attend(const uint16_t* q, const uint16_t* k, const uint16_t* v, const float* rel_pos_h,
                       const float* rel_pos_w, const int64_t* token_at, const uint16_t* padding_k,
                       const uint16_t* padding_v, const int64_t* sizes, int threads, uint16_t* out) {
  fgfast::Attend(fgfast::Bfloat16Attention{q, k, v, rel_pos_h, rel_pos_w, token_at, padding_k, padding_v, sizes[0],
                                           sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]},
                 threads, out);
}

extern "C" void attend_windows(const uint16_t* qkv, const float* bias, const float* mask, const int64_t* sizes,
                               int threads, uint16_t* out) {
  fgfast::Attend(fgfast::WindowAttention{qkv, bias, mask, sizes[0], sizes[1], sizes[2], sizes[3]}, threads, out);
}
