"""The prompt of Grounding DINO: phrases to text, and tokens back to phrases. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from fgfast.errors import UsageError

# Token ids at which the network separates phrases; SPECIAL_TOKENS in transformers' modeling_grounding_dino.py.
CLS, SEP, DOT, QUESTION = 101, 102, 1012, 1029
# BERT's padding.
PAD = 0
# max_text_len of both checkpoints.
LONGEST = 256


def prompt_text(phrases: Sequence[str]) -> str:
    """Return the prompt: each phrase in lower case, followed by " .", as the model card requires."""
    lowered = [" ".join(phrase.lower().split()) for phrase in phrases]
    if not lowered or not all(lowered):
        raise UsageError(f"Grounding DINO needs at least one subject word and none that is empty, not {list(phrases)}")
    for phrase in lowered:
        if "." in phrase or "?" in phrase:
            raise UsageError(
                f"the subject word {phrase!r} has a '.' or '?', where Grounding DINO ends a phrase; remove it"
            )
        if lowered.count(phrase) > 1:
            raise UsageError(f"the subject word {phrase!r} is given twice; give each once (case does not count)")
    return " ".join(f"{phrase} ." for phrase in lowered)


def tokens_of(phrases: Sequence[str], tokens: Sequence[int], longest: int = LONGEST) -> list[slice]:
    """Return the slice of the prompt's tokens of each phrase.

    Args:
        phrases: N phrases.
        tokens: ids of [CLS] phrase . phrase . ... [SEP].
        longest: maximum number of tokens of the network.
    """
    if len(tokens) > longest:
        raise UsageError(
            f"{len(phrases)} subject words make {len(tokens)} tokens; Grounding DINO reads {longest}: use fewer words"
        )
    ends = [i for i, token in enumerate(tokens) if token == DOT]
    starts = [1, *(end + 1 for end in ends)]
    spans = [slice(start, end) for start, end in zip(starts, ends, strict=False)]
    if len(spans) != len(phrases) or any(span.start == span.stop for span in spans):
        raise UsageError(f"the tokenizer cannot separate the subject words {list(phrases)}; use plain words")
    return spans
