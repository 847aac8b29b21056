"""The backends that run a graph: torch, onnxruntime, tensorrt; each has one Session, with the same three methods."""
