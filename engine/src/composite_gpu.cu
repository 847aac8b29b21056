#include "fgfast/composite.h"
#include "fgfast/cuda.h"

// A thread writes a pixel.
namespace fgfast::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void Fill(MaskedImage image, Window window, const uint8_t* background, int64_t background_stride,
                     int channels, uint8_t* out) {
  const int64_t pixel = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (pixel >= window.height * window.width) return;
  const int64_t y = pixel / window.width, x = pixel % window.width;
  const int64_t from_y = window.y0 + y, from_x = window.x0 + x;
  const bool inside = from_y >= 0 && from_y < image.height && from_x >= 0 && from_x < image.width;
  const int64_t from = from_y * image.width + from_x;
  const bool subject = inside && image.bits[from];
  const uint8_t* fill = background ? background + y * background_stride + x * 3 : nullptr;
  const uint8_t* source = subject ? image.pixels + from * 3 : fill;
  for (int n = 0; n < 3; ++n) out[pixel * channels + n] = source ? source[n] : 0;
  if (channels == 4) out[pixel * channels + 3] = subject ? 255 : 0;
}

void Launch(const MaskedImage& image, const Window& window, const uint8_t* background, int64_t background_stride,
            int channels, const Place& place, uint8_t* out) {
  const int64_t pixels = window.height * window.width;
  if (pixels > int64_t{kThreads} << 30) throw std::invalid_argument("out has too many pixels for a GPU");
  const Current current(place.device);
  Fill<<<Blocks(pixels, kThreads), kThreads, 0, StreamOf(place)>>>(image, window, background, background_stride,
                                                                   channels, out);
  Check(cudaGetLastError(), "composite on the GPU");
}

}  // namespace

void Composite(const MaskedImage& image, const Window& window, const uint8_t* background, int64_t background_stride,
               const Place& place, uint8_t* out) {
  Launch(image, window, background, background_stride, 3, place, out);
}

void CompositeAlpha(const MaskedImage& image, const Window& window, const Place& place, uint8_t* out) {
  Launch(image, window, nullptr, 0, 4, place, out);
}

}  // namespace fgfast::cuda
