"""Write SAM's image encoder as ONNX, or as a TensorRT engine too, and compare it with PyTorch.

python export/sam_encoder.py --model sam_vit_l --precision bf16 --backend tensorrt
"""

from __future__ import annotations

from fgfast.export.command import main

if __name__ == "__main__":
    main(__doc__, model="sam_vit_l", graphs=("sam_image_encoder",))
