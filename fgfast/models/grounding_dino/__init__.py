"""Grounding DINO through transformers: images and phrases in, detections in pixels of the stored images out.

Liu et al., "Grounding DINO" (2023). The network, its tokenizer and its image processor are those of transformers.
`sessions` builds a detector; `detector` turns token scores into one phrase per box; there are two forms of one graph:
transformers' own (`graph`), and one for export that gives the same numbers on any canvas (`canvas`, `swin`).

In PyTorch, images share a batch only where they have the same size after resizing. The reference pads a mixed batch,
and its pixel mask affects neither the windows of Swin nor the group norms: there an image's boxes depend on the other
images of the batch.

Importing this package imports neither torch nor transformers; its modules do.
"""
