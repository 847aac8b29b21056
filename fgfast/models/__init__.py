"""The plain PyTorch definitions and their pre- and post-processing, one package or module each.

Only the modules inside import torch; importing this package does not.
"""
