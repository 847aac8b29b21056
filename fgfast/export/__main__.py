"""Write a model as ONNX, or as a TensorRT engine too, and compare it with PyTorch.

`fgfast export` does the same; this is for scripts that run without fgfast's command line.
"""

from __future__ import annotations

from fgfast.export.command import main

if __name__ == "__main__":
    main(__doc__)
