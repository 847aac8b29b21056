"""Both implementations of the ops behind their face, so that one test body checks the two of them."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any
from unittest import mock

import pytest

from fgfast import ops


class Face:
    """fgfast.ops with one implementation forced, whatever FGFAST_OPS names.

    Args:
        name: "native" or "reference".
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, op: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            chosen = self.name, importlib.import_module(f"fgfast.ops.{self.name}")
            with mock.patch.object(ops, "_resolve", return_value=chosen):
                return getattr(ops, op)(*args, **kwargs)

        return call


INSTALLED = find_spec("fgfast._native") is not None
needs_native = pytest.mark.skipif(not INSTALLED, reason="fgfast._native not installed")
native, reference = Face("native"), Face("reference")


def each(needs: pytest.MarkDecorator) -> pytest.MarkDecorator:
    """Run a test once for each implementation, as `face`; `needs` skips the native one where it cannot work."""
    faces = [pytest.param(reference, id="reference"), pytest.param(native, id="native", marks=needs)]
    return pytest.mark.parametrize("face", faces)


implementations = each(needs_native)
