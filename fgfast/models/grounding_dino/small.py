"""A small Grounding DINO of random weights with a tokenizer of single letters, for trials and tests."""

from __future__ import annotations

from typing import Any

from fgfast.models.grounding_dino.packages import classes, package
from fgfast.models.grounding_dino.prompt import CLS, DOT, PAD, QUESTION, SEP


def network(seed: int) -> Any:
    """Return a small model of random weights."""
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
        for weight in model.bbox_embed.parameters():  # initially zero, which would keep every box as proposed
            torch.nn.init.normal_(weight, std=0.1)
    return model


def tokenizer() -> Any:
    """Return a tokenizer of letters and digits, with BERT's ids of the special tokens."""
    (kind,) = classes("BertTokenizer")
    return kind(vocab=_vocabulary())


def image_processor() -> Any:
    """Return an image processor with a shorter edge of 128 px."""
    (kind,) = classes("GroundingDinoImageProcessorPil")
    return kind(size={"shortest_edge": 128, "longest_edge": 224})


def _vocabulary() -> dict[str, int]:
    special = {PAD: "[PAD]", 100: "[UNK]", CLS: "[CLS]", SEP: "[SEP]", 103: "[MASK]", DOT: ".", QUESTION: "?"}
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-'"
    pieces = [special.get(i, f"[unused{i}]") for i in range(QUESTION + 1)]
    pieces += [prefix + letter for letter in letters for prefix in ("", "##")]
    return {piece: i for i, piece in enumerate(pieces)}
