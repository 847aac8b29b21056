"""Images and phrases to detections, with any sessions of Grounding DINO's graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgfast.errors import UsageError
from fgfast.models.grounding_dino.prompt import prompt_text, tokens_of
from fgfast.models.grounding_dino.transform import edges_of, resized_size
from fgfast.models.serving.batches import CanvasDetector, ImageSlot
from fgfast.models.serving.canvases import Canvases
from fgfast.records import Detections, Size

# From the example in the model cards on Hugging Face (IDEA-Research/grounding-dino-tiny, -base) and in the docstring of
# transformers' GroundingDinoForObjectDetection.forward.
BOX_THRESHOLD = 0.4
TEXT_THRESHOLD = 0.3


class GroundingDinoDetector(CanvasDetector):
    """A Grounding DINO with its phrases: images in, detections in pixels of the stored images out.

    Args:
        canvases: sessions of the graph.
        tokenizer: transformers' BertTokenizer.
        image_processor: transformers' GroundingDinoImageProcessorPil; determines the size of resized images.
        phrases: subject words, each of one or a few words; they are the labels of the boxes.
        box_threshold: a box needs a token with a higher score.
        text_threshold: a phrase needs a token with a higher score to label a box.

    Attributes:
        phrases: as given, without surrounding whitespace.
        prompt: the network's text input.
        tokens: (T,) int64, the prompt's token ids.
        box_threshold: as above.
        text_threshold: as above.
    """

    title = "Grounding DINO"
    outputs = ("logits", "boxes")
    masked = ("logits",)

    def __init__(
        self,
        canvases: Canvases,
        tokenizer: Any,
        image_processor: Any,
        phrases: Sequence[str],
        box_threshold: float = BOX_THRESHOLD,
        text_threshold: float = TEXT_THRESHOLD,
    ) -> None:
        for name, value in (("box", box_threshold), ("text", text_threshold)):
            if not 0 <= value < 1:
                raise UsageError(f"the {name} threshold must be in 0..1, below 1, not {value}")
        super().__init__(canvases)
        self.phrases = tuple(phrase.strip() for phrase in phrases)
        self.prompt = prompt_text(self.phrases)
        self.box_threshold, self.text_threshold = box_threshold, text_threshold
        self._processor = image_processor
        self._edges = edges_of(image_processor)
        self.tokens: Tensor = tokenizer(self.prompt, return_tensors="pt")["input_ids"][0]
        self._tokens_of = tokens_of(self.phrases, self.tokens.tolist())

    def resized_size(self, height: int, width: int) -> Size:
        return resized_size(height, width, *self._edges)

    @torch.inference_mode()
    def detections(self, slot: ImageSlot, row: int) -> Detections:
        return self._select(slot.results["logits"][row], slot.results["boxes"][row], slot.stored[row])

    def _others(self, rows: int) -> dict[str, Tensor]:
        self.tokens = self.tokens.to(self.device)
        return {"input_ids": self.tokens.repeat(rows, 1)}

    def _select(self, logits: Tensor, boxes: Tensor, size: Size) -> Detections:
        """Select the detections of one image.

        Boxes and scores are those of transformers' post_process_grounded_object_detection. There a label consists of
        all tokens above the text threshold, of several phrases or none; here it is the phrase with the highest token,
        and boxes without one are dropped.

        Args:
            logits: (Q, T) float32, on the CPU.
            boxes: (Q, 4) float32, on the CPU: centre and size, fractions of the image.
            size: of the stored image, pixels.
        """
        tokens = logits.sigmoid()
        score = tokens.amax(dim=1)
        best, phrase = torch.stack([tokens[:, span].amax(dim=1) for span in self._tokens_of], dim=1).max(dim=1)
        order = score.argsort(descending=True, stable=True)
        order = order[((score > self.box_threshold) & (best > self.text_threshold))[order]]

        centre, extent = boxes[order].split(2, dim=1)
        limits = torch.tensor([size.width, size.height] * 2, dtype=torch.float32)
        corners = torch.cat([centre - extent / 2, centre + extent / 2], dim=1) * limits
        clipped = np.ascontiguousarray(torch.minimum(corners.clamp(min=0), limits).numpy())
        return Detections(clipped, score[order].numpy(), tuple(self.phrases[i] for i in phrase[order].tolist()))
