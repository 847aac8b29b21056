"""Detic at inference, in plain PyTorch, with the official checkpoint's keys."""
