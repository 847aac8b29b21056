"""Errors found by themselves, mended in a browser; and what that was worth, by official masks (quality.py)."""
