"""How fast matrix products are on this CPU, measured between the turns of contenders, and the share that each reaches.

The best rate is that of the fastest single product of any engine: a square one, large enough that nothing but
arithmetic counts, and whose weights are constant, as a linear layer's are.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from fgfast import processes
from fgfast.bench.peers import Peer
from fgfast.bench.result import Row
from fgfast.bench.roofline import gmac_of
from fgfast.records import Size

# Rows, inputs and outputs of the product: 69 GFLOP, a tenth of a second at 0.7 TFLOP/s.
_ROWS, _WIDTH = 2048, 4096
FLOP = 2 * _ROWS * _WIDTH**2
# Products per turn: the first ones find the caches and the clock rate as the contender before them left them.
_CALLS = 4
PRECISIONS = ("fp32", "bf16")
_GROUP = "matrix products, TFLOP/s, fastest"


class Product:
    """A matrix product in an engine, in a process of its own.

    Args:
        engine: "PyTorch" or "OpenVINO".
        precision: one of PRECISIONS.

    Attributes:
        seconds: of the fastest product of each turn.
    """

    def __init__(self, engine: str, precision: str) -> None:
        self.engine, self.precision = engine, precision
        self.seconds: list[float] = []

    def __enter__(self) -> Product:
        self._process = processes.Child()
        self._process.call(f"{__name__}:seconds_of", self.engine, self.precision)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.close()

    def measure(self) -> None:
        """Measure once more."""
        self.seconds.append(self._process.call(f"{__name__}:seconds_of", self.engine, self.precision))

    @property
    def flops(self) -> float:
        """Operations per second of the fastest product."""
        return FLOP / min(self.seconds)


def products(wanted: bool) -> list[Product]:
    """Return the products of every engine that is installed, not yet started; none where they are not wanted."""
    engines = ["PyTorch", *(["OpenVINO"] if importlib.util.find_spec("openvino") else [])]
    return [Product(engine, precision) for engine in engines for precision in PRECISIONS] if wanted else []


def rows(
    model: str,
    seconds: Mapping[str, Sequence[float]],
    peers: Sequence[Peer],
    measured: Sequence[Product],
    sizes: Sequence[Size] = (),
) -> Iterator[Row]:
    """Yield what a comparison with peers adds: fastest turns, fgfast's lead per precision, shares of the best rate.

    Args:
        model: "detic", or a SAM such as "sam_vit_b".
        seconds: of each contender's turns, by the name of its rows.
        peers: that are among them.
        measured: the products, measured; none where there are no peers.
        sizes: of the images, for Detic; see roofline.gmac_of.
    """
    if not measured:
        return
    yield from (Row(who, min(turns), "s", "lower", "seconds per image, fastest turn") for who, turns in seconds.items())
    for peer in peers:
        ours, theirs = seconds.get(f"fgfast {peer.precision}"), seconds[peer.name]
        if ours is not None:
            name = f"fgfast {peer.precision} and {peer.name}"
            ratios = [other / own for own, other in zip(ours, theirs, strict=True)]
            yield Row.of(name, ratios, "times", "higher", "faster than the peer")
            yield Row(name, min(theirs) / min(ours), "times", "higher", "faster than the peer, fastest turns")
    for product in measured:
        yield Row(f"{product.engine} {product.precision}", product.flops / 1e12, "TFLOP/s", "higher", _GROUP)
    precision_of = {peer.name: peer.precision for peer in peers}
    operations = 2e9 * gmac_of(model, sizes)
    if not operations:  # of the tests' tiny models
        return
    for who, turns in seconds.items():
        precision = precision_of.get(who, who.removeprefix("fgfast "))
        best = max(p.flops for p in measured if p.precision == (precision if precision in PRECISIONS else "fp32"))
        yield Row(who, operations / min(turns) / best, "", "higher", "share of the best measured rate of products")


def seconds_of(engine: str, precision: str) -> float:
    """Multiply a few times in an engine; return the seconds of the fastest product."""
    multiply = _loaded(engine, precision)
    seconds = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@cache
def _loaded(engine: str, precision: str) -> Any:
    return _in_openvino(precision) if engine == "OpenVINO" else _in_torch(precision)


def _in_torch(precision: str) -> Any:
    """Return a linear layer as fgfast's models compute it on the CPU."""
    import torch

    from fgfast.backends.session import DTYPES
    from fgfast.models.linear import linear

    layer = torch.nn.Linear(_WIDTH, _WIDTH, bias=False).to(DTYPES[precision]).requires_grad_(False)
    x = torch.randn(_ROWS, _WIDTH).to(DTYPES[precision])
    return torch.inference_mode()(lambda: linear(x, layer))


def _in_openvino(precision: str) -> Any:
    import openvino
    import torch
    from openvino import opset13 as op

    from fgfast.bench.openvino_session import hints

    generator = np.random.default_rng(0)
    weights = generator.standard_normal((_WIDTH, _WIDTH), dtype=np.float32)
    x = op.parameter([_ROWS, _WIDTH], np.float32)
    model = openvino.Model([op.relu(op.matmul(x, op.constant(weights), False, True))], [x])
    request = (
        openvino.Core().compile_model(model, "CPU", hints(precision, torch.get_num_threads())).create_infer_request()
    )
    request.set_input_tensor(openvino.Tensor(generator.standard_normal((_ROWS, _WIDTH), dtype=np.float32)))
    return request.infer
