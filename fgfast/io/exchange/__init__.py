"""Masks for other annotation tools and back, a module per format. Files hold masks and names, never pixels."""
