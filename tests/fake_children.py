"""Functions that test_processes calls in processes of their own."""

import ctypes
import os
import time

import numpy as np

from fgfast.errors import DatasetError, SampleError


def no_encoder(spec, threads, encoder):
    return True


def no_embedding(spec, images):
    """As many bytes as sam_tiny256 has, for each image."""
    return [bytes(2 * 256 * 16 * 16) for _ in images]


def same(value):
    return value


def a_class():
    return dict


def a_function():
    return [os.mkdir]


def named_fields():
    return np.zeros(2, [("a", "i4"), ("b", "O")])


def dataset_error():
    from pathlib import Path

    raise DatasetError(Path("list.txt"), "no number", 3)


def sample_error():
    raise SampleError("truncated", "half of it is there")


def recursion():
    return recursion()


def crash():
    ctypes.string_at(0)


def take(size):
    return len(bytearray(size))


def take_in_numpy(size):
    return int(np.ones(size, np.uint8).sum())


def sleep():
    time.sleep(60)


def spin():
    while True:
        pass


def write(path):
    path.write_bytes(b"x" * 100)


def process_and(value):
    return os.getpid(), value
