"""How much arithmetic each model needs: multiply-accumulates per image, in 1e9.

The figures were counted from the architectures for the project's design; docs/performance.md quotes them. A
multiply-accumulate is two operations. A split shares out devices by them before anything is timed, and `fgfast bench`
compares the time of each model with the time that its arithmetic takes at least.
"""

SAM_GMAC = {"sam_vit_b": 486.0, "sam_vit_l": 1493.0, "sam_vit_h": 2981.0}
"""The image encoder of each SAM."""
SAM_DECODER_GMAC = 1.8
"""The decoder of SAM, per box."""
DETIC_GMAC = ((800 * 1088, 340.0), (896 * 1216, 419.0))
"""Detic Swin-B with 256 proposals, on images resized to so many pixels: 800x1088 is its size for an image of 4:3.

All but the box heads grows with the pixels, so that other sizes lie on the line through both."""
