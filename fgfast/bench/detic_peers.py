"""Detic in other engines, with fgfast's resizing and selection of detections around it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgfast import graphs, processes
from fgfast.bench.original_detic import Detected
from fgfast.bench.peer_sessions import files_for, session_of
from fgfast.bench.peers import Peer
from fgfast.bench.plain_detic import PlainGraph
from fgfast.methods import ModelSpec
from fgfast.models.detic.build import build_detic
from fgfast.models.detic.config import SWIN_B
from fgfast.models.detic.detector import DeticDetector
from fgfast.models.serving.canvases import AnyCanvas, canvas_of
from fgfast.records import Image, Size, UInt8
from fgfast.runner import run_batch


class DeticPeer:
    """A peer in a process of its own; a context manager.

    Args:
        peer: one of DETIC_PEERS.
        words: (C, 512) float32 embeddings, unnormalised.
        size: of the images, pixels; they are not resized.
        folder: of the files that `prepare` wrote.
    """

    def __init__(self, peer: Peer, words: Tensor, size: Size, folder: Path) -> None:
        self._wanted, self._words = (peer, size, folder), words.numpy()
        self._process = processes.Child()

    def __enter__(self) -> DeticPeer:
        self._process.call(f"{__name__}:_load", *self._wanted, self._words)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.close()

    def detect(self, image: UInt8) -> tuple[Detected, float, float]:
        """Return the detections on (H, W, 3) uint8 RGB, the seconds, and the CPU seconds of all threads."""
        found: tuple[tuple[Any, ...], float, float] = self._process.call(f"{__name__}:_detect", *self._wanted, image)
        return Detected(*found[0]), *found[1:]


def prepare(peers: list[Peer], weights: str, size: Size, folder: Path) -> None:
    """Write the graphs that the peers load.

    Args:
        peers: the ones that will be loaded.
        weights: "cached", "random:SEED" or a file.
        size: of the images, pixels.
        folder: where the files go; it exists.
    """
    from fgfast.export import detic, trace

    model = build_detic(ModelSpec("detic", weights))
    own = detic.part(model, model, "detic_detector", canvas_of([size]))
    if any(peer.graph == "own" for peer in peers):
        trace.trace(own.graph, own.contract, own.example, folder / "own.onnx")
    if any(peer.graph == "plain" for peer in peers):
        plain = PlainGraph(detic.exportable_form(model)).eval()
        trace.write(plain, own.contract, own.example, folder / "plain.onnx")  # as it is: not for TensorRT
    files_for(peers, folder)


def _load(peer: Peer, size: Size, folder: Path, words: Any) -> None:
    _DETECTORS[peer] = _detector(peer, size, folder, torch.from_numpy(words))


_DETECTORS: dict[Peer, DeticDetector] = {}
"""Of this process, which has one."""


def _detector(peer: Peer, size: Size, folder: Path, words: Tensor) -> DeticDetector:
    contract = graphs.detic_detector(canvas_of([size]), 1)
    session = session_of(peer, folder, contract)
    return DeticDetector(AnyCanvas(lambda canvas, count: session), SWIN_B, list(map(str, range(len(words)))), words)


def _detect(peer: Peer, size: Size, folder: Path, image: UInt8) -> tuple[tuple[Any, ...], float, float]:
    detector = _DETECTORS[peer]
    start, used = time.perf_counter(), time.process_time()
    (found,) = run_batch(detector, [(Image(image),)])
    seconds = time.perf_counter() - start, time.process_time() - used
    return (found.boxes, found.scores, np.array([int(label) for label in found.labels], np.int64)), *seconds
