"""Weights and exported graphs on disk: fetched, verified, read without running anyone's code."""
