"""What runs a graph: torch, onnxruntime, tensorrt; one Session each, with the same three methods."""
