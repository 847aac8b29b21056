"""Grounding DINO through transformers: images and phrases in, detections in pixels of the stored images out.

Liu et al., "Grounding DINO" (2023). The network, its tokenizer and its image processor are those of transformers.
`sessions` builds a detector; `detector` goes from token scores to one phrase per box; `prompt` and `precision` are what
they say; and there are two forms of one graph: transformers' own (`graph`), and one for export that gives the same
numbers on any canvas (`canvas`, `swin`).

In PyTorch, images share a batch only where they have the same size after resizing. The reference pads a mixed batch,
and its pixel mask stops neither the windows of Swin nor the group norms: there an image's boxes depend on its
neighbours.

Importing this package imports neither torch nor transformers; its modules do.
"""
