"""Runs any model on a device: batches in slots, padded input sizes, exported graphs, the choice of a backend."""
