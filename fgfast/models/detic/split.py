"""Detic as two graphs of fixed shape, with suppression, whose work depends on the data, between them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fgfast import graphs
from fgfast.backends.session import described
from fgfast.backends.torch import TorchSession
from fgfast.models.detic.graph import BackboneGraph, HeadsGraph, best_proposals
from fgfast.models.detic.model import Detic
from fgfast.records import Size


class SplitDetic:
    """`detic_detector` as backbone, suppression and heads: a fgfast.backends.session.Session.

    Args:
        model: with weights.
        canvas: (height, width), pixels.
        batch: images per call.
        form: of the two halves.
    """

    backend = "torch"

    def __init__(self, model: Detic, canvas: Size, batch: int, form: str) -> None:
        config, device = model.config, model.device
        precision = model.precision
        self.contract = graphs.detic_detector(canvas, batch, config.proposals)
        self.device, self._model = device, model
        self._kept: tuple[int, Size] | None = (batch, canvas)
        model.backbone.bottom_up.keep(batch, canvas)
        first = graphs.detic_backbone(canvas, batch, config.pyramid_channels, config.level_candidates, precision)
        second = graphs.detic_heads(canvas, batch, config.pyramid_channels, config.proposals, precision)
        self._first = TorchSession(BackboneGraph(model), first, device, form)
        self._second = TorchSession(HeadsGraph(model), second, device, form)

    @torch.inference_mode()
    def run(self, inputs: Mapping[str, Tensor], stream: torch.cuda.Stream | None = None) -> dict[str, Tensor]:
        self.contract.bind(described(inputs))
        with torch.cuda.stream(stream):
            found = self._first.run({name: inputs[name] for name in ("pixels", "sizes")})
            boxes, scores = best_proposals(self._model, found.pop("candidates"), found.pop("candidate_scores"))
            others = {"sizes": inputs["sizes"], "vocabulary": inputs["vocabulary"]}
            return self._second.run({**found, "proposals": boxes, "proposal_scores": scores, **others})

    def close(self) -> None:
        self._first.close()
        self._second.close()
        if self._kept:
            self._model.backbone.bottom_up.drop(*self._kept)
            self._kept = None
