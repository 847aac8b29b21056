"""Weights and exported graphs on disk: fetched, verified, and read without executing code from a file."""
