"""Grounding DINO through transformers: pictures and phrases in, detections in pixels of the stored pictures out.

Liu et al., "Grounding DINO" (2023). The network, its tokenizer and its image processor are those of transformers;
here are the prompt, the batch, the precision and the way from token scores to one phrase a box.

Pictures share a batch only where they have the same size after resizing. The reference pads a mixed batch, and its
pixel mask stops neither the windows of Swin nor the group norms: there a picture's boxes depend on its neighbours.

torch and transformers are imported when a detector is built, not before.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fgfast.errors import MissingExtraError, UnknownNameError, UsageError, WeightsError
from fgfast.models import weights as cache
from fgfast.records import Detections, Image

if TYPE_CHECKING:
    from torch import Tensor

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[Precision, str] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

NAMES = ("grounding_dino_tiny", "grounding_dino_base")
NEEDED = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json")

# The example of the model cards on Hugging Face (IDEA-Research/grounding-dino-tiny, -base), as repeated in the
# docstring of transformers' GroundingDinoForObjectDetection.forward.
BOX_THRESHOLD = 0.4
TEXT_THRESHOLD = 0.3
# Token ids at which the network separates phrases; SPECIAL_TOKENS in transformers' modeling_grounding_dino.py.
CLS, SEP, DOT, QUESTION = 101, 102, 1012, 1029
# px; thinner pictures get a margin, else they may have fewer cells than the network has queries (900).
SMALLEST_SIDE = 128
# These decide coordinates and scores, and cost little: float32 in every precision.
FLOAT32_MODULES = re.compile(r"(bbox_embed|class_embed)(\.\d+)?$|(reference_points_head|sampling_offsets)$")


class GroundingDinoDetector:
    """A Grounding DINO with its phrases: pictures in, detections in pixels of the stored pictures out.

    Args:
        model: transformers' GroundingDinoForObjectDetection, with weights in float32.
        tokenizer: transformers' BertTokenizer.
        image_processor: transformers' GroundingDinoImageProcessorPil.
        phrases: subject words, each a word or a few; they label the boxes as they are written here.
        precision: of matrix products and convolutions; norms, boxes and scores are float32 always.
        box_threshold: a box needs a token that scores more.
        text_threshold: a phrase needs a token that scores more, else it labels no box.

    Attributes:
        phrases: as given, without surrounding space.
        prompt: the text the network reads.
        box_threshold: as above.
        text_threshold: as above.
        precision: as above.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        phrases: Sequence[str],
        precision: Precision = "fp32",
        box_threshold: float = BOX_THRESHOLD,
        text_threshold: float = TEXT_THRESHOLD,
    ) -> None:
        for name, value in (("box", box_threshold), ("text", text_threshold)):
            if not 0 <= value < 1:
                raise UsageError(f"the {name} threshold must be in 0..1, below 1, not {value}")
        self.phrases = tuple(phrase.strip() for phrase in phrases)
        self.prompt = prompt_text(self.phrases)
        self.box_threshold, self.text_threshold = box_threshold, text_threshold
        self.precision = precision
        self._torch = _package("torch")
        self._processor = image_processor
        self._text = tokenizer(self.prompt, return_tensors="pt", return_token_type_ids=True).to(model.device)
        tokens = self._text["input_ids"][0].tolist()
        self._tokens_of = _tokens_of(self.phrases, tokens, model.config.max_text_len)
        self._model = _with_precision(model.requires_grad_(False).eval(), precision)

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """The detections of each picture, as if it were alone; descending by score."""
        pixels = [self.preprocess(image) for image in images]
        alike: dict[tuple[int, ...], list[int]] = {}
        for index, picture in enumerate(pixels):
            alike.setdefault(tuple(picture.shape), []).append(index)
        found: dict[int, Detections] = {}
        for members in alike.values():
            logits, boxes = self.forward(self._torch.stack([pixels[i] for i in members]))
            for row, index in enumerate(members):
                found[index] = self._select(logits[row], boxes[row], images[index].size)
        return [found[index] for index in range(len(images))]

    def preprocess(self, image: Image) -> Tensor:
        """The picture as the model's own image processor makes it: (3, h, w) float32, resized and normalised."""
        made = self._processor(
            images=[image.pixels], do_pad=False, return_tensors="pt", input_data_format="channels_last"
        )
        pixels: Tensor = made["pixel_values"][0]
        return pixels

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Token logits and boxes of every query.

        Args:
            pixels: (B, 3, h, w) float32, from `preprocess`.

        Returns:
            logits (B, Q, T) float32, -inf behind the last token of the prompt; boxes (B, Q, 4) float32,
            centre x, centre y, width, height, as shares of the picture without margin.
        """
        torch, model = self._torch, self._model
        count, _, height, width = pixels.shape
        margin = (0, max(0, SMALLEST_SIDE - width), 0, max(0, SMALLEST_SIDE - height))
        mask = torch.nn.functional.pad(torch.ones((count, height, width), dtype=torch.int64), margin)
        pixels = torch.nn.functional.pad(pixels, margin)
        text = {name: rows.expand(count, -1) for name, rows in self._text.items()}
        dtype = getattr(torch, DTYPES[self.precision])
        half = torch.autocast(model.device.type, dtype, enabled=self.precision != "fp32")
        with torch.inference_mode(), half:
            out = model(pixel_values=pixels.to(model.device), pixel_mask=mask.to(model.device), **text)
        return out.logits.float(), out.pred_boxes.float()

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
        torch = self._torch
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


def build(
    name: str,
    phrases: Sequence[str],
    weights: str | Path = "cached",
    *,
    pull: bool = False,
    device: str = "cpu",
    precision: Precision = "fp32",
    box_threshold: float = BOX_THRESHOLD,
    text_threshold: float = TEXT_THRESHOLD,
) -> GroundingDinoDetector:
    """A detector by name.

    Args:
        name: grounding_dino_tiny or grounding_dino_base.
        phrases: subject words.
        weights: "cached" for the Hugging Face cache; a folder with the checkpoint's files; or "random:SEED", a small
            model of random weights whose tokenizer spells (a testing aid; `name` does not change it).
        pull: download what the cache lacks.
        device: where it computes.
        precision: see GroundingDinoDetector.
        box_threshold: see GroundingDinoDetector.
        text_threshold: see GroundingDinoDetector.

    Raises:
        UsageError: a request that cannot be carried out.
        ModelNotCachedError: the weights are not on this machine; says what to type.
        MissingExtraError: torch or transformers is not installed.
        WeightsError: the files are damaged or of another model.
        DownloadError: a pull failed.
    """
    if name not in NAMES:
        raise UnknownNameError("Grounding DINO model", name, NAMES)
    if precision not in DTYPES:
        raise UnknownNameError("precision", precision, DTYPES)
    _package("torch")
    chosen = str(weights)
    if chosen.startswith("random:"):
        parts = _random(chosen.removeprefix("random:"))
    elif chosen == "cached":
        parts = _load(cache.pull(name) if pull else cache.path(name))
    else:
        parts = _load(Path(weights).expanduser())
    model, tokenizer, processor = parts
    return GroundingDinoDetector(
        model.to(device), tokenizer, processor, phrases, precision, box_threshold, text_threshold
    )


def prompt_text(phrases: Sequence[str]) -> str:
    """The prompt: each phrase in lower case and ended by " .", as the model card asks."""
    lowered = [" ".join(phrase.lower().split()) for phrase in phrases]
    if not lowered or not all(lowered):
        raise UsageError(f"Grounding DINO needs at least one subject word and none that is empty, not {list(phrases)}")
    for phrase in lowered:
        if "." in phrase or "?" in phrase:
            raise UsageError(
                f"the subject word {phrase!r} has a '.' or '?', where Grounding DINO ends a phrase; drop it"
            )
        if lowered.count(phrase) > 1:
            raise UsageError(f"the subject word {phrase!r} is given twice; give each once (case does not count)")
    return " ".join(f"{phrase} ." for phrase in lowered)


def _package(name: str) -> Any:
    """An optional package; imported by name, so that nothing is imported, or type-checked, without being used."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(name, "text", "Grounding DINO") from error


def _classes(*names: str) -> list[Any]:
    """Classes of transformers, which imports their modules only now."""
    transformers = _package("transformers")
    try:
        return [getattr(transformers, name) for name in names]
    except (ImportError, AttributeError, RuntimeError) as error:
        raise UsageError(
            f"transformers {transformers.__version__} cannot load Grounding DINO: {error} Either it is too old "
            '(pip install -U "fgfast[text]"), or torchvision, which is not needed, does not fit the installed torch '
            "(pip uninstall torchvision)"
        ) from error


def _load(folder: Path) -> tuple[Any, Any, Any]:
    """Model, tokenizer and image processor from a folder with a checkpoint's files."""
    if absent := [name for name in NEEDED if not (folder / name).is_file()]:
        raise UsageError(f"{folder} is no Grounding DINO checkpoint: it lacks {', '.join(absent)}")
    network, tokenizer, processor = _classes(
        "GroundingDinoForObjectDetection", "BertTokenizer", "GroundingDinoImageProcessorPil"
    )
    try:
        model, report = network.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            weights_only=True,
            dtype=_package("torch").float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(folder, f"cannot be loaded as Grounding DINO: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise WeightsError(
            folder / "model.safetensors",
            f"lacks {len(missing)} weights, the first {missing[:3]}; take the file of a Grounding DINO",
        )
    return (
        model,
        tokenizer.from_pretrained(folder, local_files_only=True),
        processor.from_pretrained(folder, local_files_only=True),
    )


def _random(seed: str) -> tuple[Any, Any, Any]:
    """A small model of random weights, a tokenizer that spells, an image processor with a shorter edge of 128 px."""
    if not (seed.isascii() and seed.isdigit()):
        raise UsageError(f"random weights are asked for as random:SEED with a whole number, not random:{seed}")
    torch = _package("torch")
    network, config, swin, bert, tokenizer, processor = _classes(
        "GroundingDinoForObjectDetection",
        "GroundingDinoConfig",
        "SwinConfig",
        "BertConfig",
        "BertTokenizer",
        "GroundingDinoImageProcessorPil",
    )
    vocabulary = _spelling_vocabulary()
    sizes = config(
        backbone_config=swin(
            image_size=128,
            embed_dim=16,
            depths=[1, 2, 1, 1],
            num_heads=[1, 2, 2, 4],
            window_size=4,
            out_indices=[2, 3, 4],
        ),
        text_config=bert(
            vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
        ),
        d_model=32,  # channels; the group norms have 32 groups
        num_queries=30,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        model = network(sizes)
        for weight in model.bbox_embed.parameters():  # zero at first, which would leave every box as it was proposed
            torch.nn.init.normal_(weight, std=0.1)
    return model, tokenizer(vocab=vocabulary), processor(size={"shortest_edge": 128, "longest_edge": 224})


def _spelling_vocabulary() -> dict[str, int]:
    """A WordPiece vocabulary of letters and digits, with the special tokens where BERT has them."""
    special = {0: "[PAD]", 100: "[UNK]", CLS: "[CLS]", SEP: "[SEP]", 103: "[MASK]", DOT: ".", QUESTION: "?"}
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-'"
    pieces = [special.get(i, f"[unused{i}]") for i in range(QUESTION + 1)]
    pieces += [prefix + letter for letter in letters for prefix in ("", "##")]
    return {piece: i for i, piece in enumerate(pieces)}


def _tokens_of(phrases: Sequence[str], tokens: Sequence[int], longest: int) -> list[slice]:
    """Where in the prompt's tokens each phrase stands.

    Args:
        phrases: N phrases.
        tokens: ids of [CLS] phrase . phrase . ... [SEP].
        longest: tokens the network reads.
    """
    if len(tokens) > longest:
        raise UsageError(
            f"{len(phrases)} subject words make {len(tokens)} tokens; Grounding DINO reads {longest}: use fewer words"
        )
    ends = [i for i, token in enumerate(tokens) if token == DOT]
    starts = [1, *(end + 1 for end in ends)]
    spans = [slice(start, end) for start, end in zip(starts, ends, strict=False)]
    if len(spans) != len(phrases) or any(span.start == span.stop for span in spans):
        raise UsageError(f"the tokenizer does not tell the subject words {list(phrases)} apart; use plain words")
    return spans


def _with_precision(model: Any, precision: Precision) -> Any:
    """Prepare `model` for autocast: weights of matrix products in half precision, all else in float32."""
    if precision == "fp32":
        return model
    torch = _package("torch")
    nn = torch.nn
    exact = [
        m for name, m in model.named_modules() if FLOAT32_MODULES.search(name) and not isinstance(m, nn.ModuleList)
    ]
    kept = {id(layer) for module in exact for layer in module.modules()}
    for layer in model.modules():
        if isinstance(layer, (nn.LayerNorm, nn.GroupNorm)):
            layer.register_forward_pre_hook(lambda _, inputs: tuple(x.float() for x in inputs))
        elif isinstance(layer, (nn.Linear, nn.Conv2d)) and id(layer) not in kept:
            layer.to(getattr(torch, DTYPES[precision]))
    for module in exact:
        module.forward = _in_float32(torch, module.forward, model.device.type)
    return model


def _in_float32(torch: Any, forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    """`forward` outside autocast, its floating inputs as float32."""

    def exact(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, enabled=False):
            return forward(
                *(x.float() if x.is_floating_point() else x for x in args),
                **{name: x.float() if x.is_floating_point() else x for name, x in kwargs.items()},
            )

    return exact
