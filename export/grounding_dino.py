"""Write Grounding DINO as ONNX, or as a TensorRT engine too, and compare it with transformers' own network.

python export/grounding_dino.py --model grounding_dino_base --canvas 800x1088 --backend tensorrt
"""

from __future__ import annotations

from fgfast.export.command import main

if __name__ == "__main__":
    main(__doc__, model="grounding_dino_tiny")
