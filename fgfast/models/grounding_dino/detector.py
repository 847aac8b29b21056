"""Pictures and phrases to detections, through whatever computes Grounding DINO's graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgfast.errors import UsageError
from fgfast.models.detic.detector import Canvases, on_canvas
from fgfast.models.grounding_dino.prompt import prompt_text, tokens_of
from fgfast.records import Detections, Image, UInt8

# The example of the model cards on Hugging Face (IDEA-Research/grounding-dino-tiny, -base), as repeated in the
# docstring of transformers' GroundingDinoForObjectDetection.forward.
BOX_THRESHOLD = 0.4
TEXT_THRESHOLD = 0.3


class GroundingDinoDetector:
    """A Grounding DINO with its phrases: pictures in, detections in pixels of the stored pictures out.

    Args:
        canvases: what computes the graph.
        tokenizer: transformers' BertTokenizer.
        image_processor: transformers' GroundingDinoImageProcessorPil.
        phrases: subject words, each a word or a few; they label the boxes as they are written here.
        box_threshold: a box needs a token that scores more.
        text_threshold: a phrase needs a token that scores more, else it labels no box.

    Attributes:
        canvases: as above.
        phrases: as given, without surrounding space.
        prompt: the text the network reads.
        tokens: (T,) int64, the prompt as the network reads it.
        box_threshold: as above.
        text_threshold: as above.
    """

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
        self.canvases = canvases
        self.phrases = tuple(phrase.strip() for phrase in phrases)
        self.prompt = prompt_text(self.phrases)
        self.box_threshold, self.text_threshold = box_threshold, text_threshold
        self._processor = image_processor
        self.tokens: Tensor = tokenizer(self.prompt, return_tensors="pt")["input_ids"][0]
        self._tokens_of = tokens_of(self.phrases, self.tokens.tolist())

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """The detections of each picture, as if it were alone; descending by score."""
        resized = [self.resize(image) for image in images]
        found: dict[int, Detections] = {}
        for session, places in self.canvases.share([(r.shape[0], r.shape[1]) for r in resized]):
            pixels, sizes = on_canvas([resized[place] for place in places], session)
            prompts = self.tokens.to(session.device).repeat(len(pixels), 1)
            out = session.run({"pixels": pixels, "sizes": sizes, "input_ids": prompts})
            for row, place in enumerate(places):
                found[place] = self._select(out["logits"][row], out["boxes"][row], images[place].size)
        return [found[place] for place in range(len(images))]

    def resize(self, image: Image) -> UInt8:
        """The picture as the model's own image processor resizes it: (h, w, 3) uint8."""
        made = self._processor(
            images=[image.pixels],
            do_pad=False,
            do_rescale=False,
            do_normalize=False,
            return_tensors="np",
            input_data_format="channels_last",
            data_format="channels_first",
        )
        pixels: UInt8 = np.ascontiguousarray(made["pixel_values"][0].transpose(1, 2, 0))
        return pixels

    def _select(self, logits: Tensor, boxes: Tensor, size: tuple[int, int]) -> Detections:
        """What counts as a detection in one picture, on the CPU in float32.

        Boxes and scores are those of transformers' post_process_grounded_object_detection. There a label is made
        of all tokens above the text threshold, of several phrases or of none; here it is the phrase with the
        highest token, and boxes without one are dropped.

        Args:
            logits: (Q, T) float32.
            boxes: (Q, 4) float32, centre and size, shares of the picture.
            size: (width, height) of the stored picture, pixels.
        """
        tokens = logits.cpu().sigmoid()
        score = tokens.amax(dim=1)
        best, phrase = torch.stack([tokens[:, span].amax(dim=1) for span in self._tokens_of], dim=1).max(dim=1)
        order = score.argsort(descending=True, stable=True)
        order = order[((score > self.box_threshold) & (best > self.text_threshold))[order]]

        centre, extent = boxes.cpu()[order].split(2, dim=1)
        limits = torch.tensor([*size, *size], dtype=torch.float32)
        corners = torch.cat([centre - extent / 2, centre + extent / 2], dim=1) * limits
        clipped = np.ascontiguousarray(torch.minimum(corners.clamp(min=0), limits).numpy())
        return Detections(clipped, score[order].numpy(), tuple(self.phrases[i] for i in phrase[order].tolist()))
