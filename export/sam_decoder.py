"""Write SAM's prompt encoder and mask decoder as one ONNX graph, or as a TensorRT engine too.

The graph takes any number of images and boxes and is compared with PyTorch. It is always float32; --precision is that
of the encoder it belongs to.

    python export/sam_decoder.py --model sam_vit_l --backend tensorrt
"""

from __future__ import annotations

from fgfast.export.command import main

if __name__ == "__main__":
    main(__doc__, model="sam_vit_l", graphs=("sam_mask_decoder",))
