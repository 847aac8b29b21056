"""Detic as two graphs of fixed shape, with suppression, whose work depends on the data, between them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from fgfast import graphs
from fgfast.backends.recording import Pool
from fgfast.backends.session import Session, described
from fgfast.backends.torch import TorchSession
from fgfast.errors import GraphError
from fgfast.models.detic.config import DeticConfig
from fgfast.models.detic.graph import BackboneGraph, HeadsGraph
from fgfast.models.detic.model import Detic
from fgfast.models.detic.proposals import Candidates, Suppress, best
from fgfast.records import Size


class SplitDetic:
    """`detic_detector` as backbone, suppression and heads: a fgfast.backends.session.Session.

    Args:
        model: with weights.
        canvas: (height, width), pixels.
        batch: images per call.
        form: of the two halves.
        pool: of the model's recordings, on all canvases; None where there is this canvas alone.
    """

    backend = "torch"

    def __init__(self, model: Detic, canvas: Size, batch: int, form: str, pool: Pool | None = None) -> None:
        config, device = model.config, model.device
        precision = model.precision
        self.contract = graphs.detic_detector(canvas, batch, config.proposals)
        self.device, self._model = device, model
        self._kept: tuple[int, Size] | None = (batch, canvas)
        model.backbone.bottom_up.keep(batch, canvas)
        first = graphs.detic_backbone(canvas, batch, config.pyramid_channels, config.level_candidates, precision)
        second = graphs.detic_heads(canvas, batch, config.pyramid_channels, config.proposals, precision)
        pool = Pool(device) if pool is None and "recorded" in form else pool
        self._first = TorchSession(BackboneGraph(model), first, device, form, pool)
        self._second = TorchSession(HeadsGraph(model), second, device, form, pool)

    @torch.inference_mode()
    def run(self, inputs: Mapping[str, Tensor], stream: torch.cuda.Stream | None = None) -> dict[str, Tensor]:
        self.contract.bind(described(inputs))
        with torch.cuda.stream(stream):
            suppress = self._model.proposal_generator.suppress
            return _run(self._first, self._second, suppress, self._model.config, inputs)

    def close(self) -> None:
        self._first.close()
        self._second.close()
        if self._kept:
            self._model.backbone.bottom_up.drop(*self._kept)
            self._kept = None


class ExportedDetic:
    """`detic_detector` as two exported graphs, in any backend, with suppression between: a Session.

    Args:
        backbone: of `detic_backbone`.
        heads: of `detic_heads`, for the same canvas and batch.
        suppress: chooses among the candidates of one image.
        config: the model's sizes.
    """

    def __init__(self, backbone: Session, heads: Session, suppress: Suppress, config: DeticConfig) -> None:
        self._first, self._second, self._suppress, self._config = backbone, heads, suppress, config
        self.contract = contract_of(backbone.contract, heads.contract)
        self.backend, self.device = backbone.backend, backbone.device

    @torch.inference_mode()
    def run(self, inputs: Mapping[str, Tensor], stream: torch.cuda.Stream | None = None) -> dict[str, Tensor]:
        """Run once; see Session.run. A vocabulary with fewer words than the heads take is filled up with zeros."""
        classes = self.contract.bind(described(inputs))["classes"]
        most = classes_of(self._second.contract)
        with torch.cuda.stream(stream):
            if most is None or most == classes:
                return _run(self._first, self._second, self._suppress, self._config, inputs)
            if most < classes:
                raise GraphError(
                    f"detic_heads was exported for {most - 1} words, and the vocabulary has {classes - 1}: export it "
                    f"with --words {classes - 1}"
                )
            filled = functional.pad(inputs["vocabulary"], (0, most - classes))
            found = _run(self._first, self._second, self._suppress, self._config, {**inputs, "vocabulary": filled})
            return {**found, "scores": found["scores"][..., :classes].contiguous()}

    def close(self) -> None:
        """Free the memory; see Session.close."""
        self._first.close()
        self._second.close()


def contract_of(backbone: graphs.Contract, heads: graphs.Contract) -> graphs.Contract:
    """Return the contract of both halves together."""
    batch, height, width, _ = (int(n) for n in backbone.inputs[0].shape)
    return graphs.detic_detector((height, width), batch, int(heads.outputs[0].shape[1]))


def classes_of(heads: graphs.Contract) -> int | None:
    """Return the columns of the vocabulary, background included, that heads take; None for any number."""
    (classes,) = (port.shape[1] for port in heads.inputs if port.name == "vocabulary")
    return classes if isinstance(classes, int) else None


def _run(
    first: Session, second: Session, suppress: Suppress, config: DeticConfig, inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Run both halves on the current stream, with suppression between."""
    found = first.run({name: inputs[name] for name in ("pixels", "sizes")})
    boxes, scores = best(Candidates(found.pop("candidates"), found.pop("candidate_scores")), suppress, config)
    others = {"sizes": inputs["sizes"], "vocabulary": inputs["vocabulary"]}
    return second.run({**found, "proposals": boxes, "proposal_scores": scores, **others})
