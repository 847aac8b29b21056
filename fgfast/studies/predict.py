"""What a trained classifier says of a test set. Nothing of a training is imported here, and nothing is trained.

Import this module only where a model is at hand: it imports torch.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable

import numpy as np
import torch

from fgfast.studies.cell import Strategy
from fgfast.studies.loading import Batch
from fgfast.studies.models import Backbone
from fgfast.studies.predictions import Predictions


def predict(model: Backbone, batches: Iterable[Batch], strategy: Strategy, device: str) -> Predictions:
    """Predict the class of each sample; see `predicting`."""
    steps = predicting(model, batches, strategy, device)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def predicting(
    model: Backbone, batches: Iterable[Batch], strategy: Strategy, device: str
) -> Generator[None, None, Predictions]:
    """Predict the class of each sample, and yield after each batch.

    Args:
        model: on its device; it is left in evaluation mode.
        batches: each sample once.
        strategy: of the training; pixels are masked already.
        device: "cpu", "cuda:0", ...

    Raises:
        UsageError: a sample occurs twice, there is none, or a probability is no number.
    """
    model.eval()
    keys: list[str] = []
    labels, predicted, confidence = [], [], []
    for batch in batches:
        with torch.inference_mode():
            logits = model(batch.x.to(device), batch.mask.to(device), strategy.within).float()
            most, chosen = logits.softmax(1).max(1)
        keys += batch.keys
        labels.append(batch.y.numpy())
        predicted.append(chosen.cpu().numpy())
        confidence.append(most.cpu().numpy())
        yield
    columns = (np.concatenate(column) if column else () for column in (labels, predicted, confidence))
    return Predictions.of(keys, *columns)
