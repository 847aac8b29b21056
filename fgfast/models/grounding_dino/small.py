"""A small Grounding DINO of random weights whose tokenizer spells: for trying out and for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fgfast.errors import UsageError
from fgfast.models.grounding_dino.packages import classes, package
from fgfast.models.grounding_dino.prompt import CLS, DOT, PAD, QUESTION, SEP


def seed_of(weights: str | Path) -> int | None:
    """The seed of "random:SEED"; None for any other weights.

    Raises:
        UsageError: there is something else behind "random:".
    """
    kind, colon, seed = str(weights).partition(":")
    if kind != "random" or not colon:
        return None
    if not (seed.isascii() and seed.isdigit()):
        raise UsageError(f"random weights are asked for as random:SEED with a whole number, not random:{seed}")
    return int(seed)


def network(seed: int) -> Any:
    """A small model of random weights."""
    torch = package("torch")
    kind, config, swin, bert = classes(
        "GroundingDinoForObjectDetection", "GroundingDinoConfig", "SwinConfig", "BertConfig"
    )
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
            vocab_size=len(_vocabulary()),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
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
        torch.manual_seed(seed)
        model = kind(sizes)
        for weight in model.bbox_embed.parameters():  # zero at first, which would leave every box as it was proposed
            torch.nn.init.normal_(weight, std=0.1)
    return model


def tokenizer() -> Any:
    """A tokenizer of letters and digits, with the special tokens where BERT has them."""
    (kind,) = classes("BertTokenizer")
    return kind(vocab=_vocabulary())


def image_processor() -> Any:
    """An image processor with a shorter edge of 128 px."""
    (kind,) = classes("GroundingDinoImageProcessorPil")
    return kind(size={"shortest_edge": 128, "longest_edge": 224})


def _vocabulary() -> dict[str, int]:
    special = {PAD: "[PAD]", 100: "[UNK]", CLS: "[CLS]", SEP: "[SEP]", 103: "[MASK]", DOT: ".", QUESTION: "?"}
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-'"
    pieces = [special.get(i, f"[unused{i}]") for i in range(QUESTION + 1)]
    pieces += [prefix + letter for letter in letters for prefix in ("", "##")]
    return {piece: i for i, piece in enumerate(pieces)}
