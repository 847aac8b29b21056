"""Image-text models of transformers: an image and a question become text, always the likeliest next word."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, NamedTuple

from fgfast.errors import SampleError
from fgfast.records import UInt8
from fgfast.transfer import switched_on


def is_cached(name: str) -> bool:
    """Return whether a model of the hub, owner/name, is on this machine, as far as its first file tells."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


class Said(NamedTuple):
    """What a model said: text, whether it came to an end, tokens asked and said."""

    text: str
    ended: bool
    asked: int
    said: int


class ImageTextModel:
    """A model of transformers with its processor, on the first GPU, else on the CPU; one thread asks at a time."""

    def __init__(self, name: str, tokens: int) -> None:
        """Load it.

        Args:
            name: a folder, or owner/name on the Hugging Face hub. No code of its own is run, and weights are read from
                safetensors alone.
            tokens: most tokens of an answer.

        Raises:
            SampleError: it cannot be loaded.
        """
        offline = any(switched_on(variable) for variable in ("FGFAST_OFFLINE", "HF_HUB_OFFLINE"))
        common: dict[str, Any] = {"trust_remote_code": False, "local_files_only": offline or Path(name).is_dir()}
        try:
            import torch
            from transformers import AutoModelForImageTextToText, AutoProcessor

            self._processor = AutoProcessor.from_pretrained(name, **common)
            model = AutoModelForImageTextToText.from_pretrained(name, dtype="auto", use_safetensors=True, **common)
        except Exception as error:  # its own errors, the hub's, of packages that do not fit, of whatever files break
            raise SampleError(
                "model", f"{name} cannot be loaded: {type(error).__name__}: {str(error)[:300]}"
            ) from error
        self._device = "cuda:0" if torch.cuda.is_available() else "cpu"
        self._model = model.to(self._device).eval()
        self._tokens, self._lock = tokens, threading.Lock()

    def ask(self, pixels: UInt8, question: str) -> Said:
        """Ask about an image, (H, W, 3) uint8 RGB.

        A model without a chat format gets the image alone, as captioning models such as BLIP expect.

        Raises:
            SampleError: it does not take the image.
        """
        import PIL.Image as pillow
        import torch

        image = pillow.fromarray(pixels)
        try:
            inputs = self._inputs(image, question).to(self._device, self._model.dtype)
            with self._lock, torch.inference_mode():
                found = self._model.generate(**inputs, max_new_tokens=self._tokens, do_sample=False, num_beams=1)[0]
        except Exception as error:  # of any of many models, each with its own checks
            raise SampleError("model", f"the model fails: {type(error).__name__}: {error}"[:300]) from error
        asked = int(inputs["input_ids"].shape[1]) if "input_ids" in inputs else 0
        # A model with an encoder of its own for text returns the answer alone.
        if asked and not self._model.config.is_encoder_decoder:
            found = found[asked:]
        text = self._processor.decode(found, skip_special_tokens=True)
        return Said(text, len(found) < self._tokens, asked, len(found))

    def _inputs(self, image: Any, question: str) -> Any:
        if getattr(self._processor, "chat_template", None) is None:
            return self._processor(images=image, return_tensors="pt")
        parts = [{"type": "image", "image": image}, {"type": "text", "text": question}]
        return self._processor.apply_chat_template(
            [{"role": "user", "content": parts}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
