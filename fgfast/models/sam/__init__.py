"""Segment Anything from a box: image and boxes in, masks out. Start reading at `model.Sam`.

Importing this package does not import torch; its modules do, except `architecture`.
"""
