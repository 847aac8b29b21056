"""Write Detic as ONNX, from pixels to scored boxes, or as a TensorRT engine too, and compare it with PyTorch.

python export/detic.py --precision bf16 --canvas 800x1088,1088x800 --backend tensorrt
python export/detic.py --split
"""

from __future__ import annotations

from fgfast.export.command import main

if __name__ == "__main__":
    main(__doc__, model="detic")
