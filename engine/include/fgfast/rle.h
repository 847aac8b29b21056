// Masks as COCO run-length strings: runs of 0s and 1s in turn, starting with 0s, down the columns from left
// to right. Every run from the fourth on is stored as its difference to the run two before; numbers are
// written five bits a character, low bits first, bit 5 set where more follow, plus 48 (cocodataset/cocoapi,
// common/maskApi.c).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fgfast {

// `bits` is height x width, row-major; anything but 0 is subject.
std::string RleEncode(const uint8_t* bits, int64_t height, int64_t width);

// The runs of a string that must cover exactly height x width pixels. Throws std::invalid_argument otherwise.
// height and width are at most 2^31 - 1.
std::vector<int64_t> RleRuns(std::string_view counts, int64_t height, int64_t width);

// Draws runs into `bits`, height x width, row-major, which must be all 0.
void RleDraw(const std::vector<int64_t>& runs, int64_t height, int64_t width, uint8_t* bits);

}  // namespace fgfast
