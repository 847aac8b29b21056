"""Class names and their text embeddings for Detic: LVIS's, a selection of them, or any other words.

The 1,203 names of LVIS come with embeddings; a word that is one of them ("bird", "car" for car_(automobile)) needs no
text encoder. Other words are encoded once by CLIP's, as "a " + word, and stored in the cache folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fgfast import keyed_notes
from fgfast.errors import MissingExtraError, UsageError, WeightsError
from fgfast.files import read_regular
from fgfast.keyed_notes import Stamp
from fgfast.methods import seed_of
from fgfast.models.files import hub, hub_files, weights
from fgfast.records import Float32, plain
from fgfast.transfer import cache_folder
from fgfast.writing import Target, locked, write_file

# CLIP ViT-B/32's text embedding (Detic's ZEROSHOT_WEIGHT_DIM) and Detic's prompt (detic/predictor.py).
WIDTH = 512
PROMPT = "a "
# A list of names, and the cache of embeddings (2 kB a name).
_MOST_NAMES, _MOST_BYTES = 16 << 20, 1 << 30
_KIND = "embeddings"


class Vocabulary(NamedTuple):
    """The classes of a detector.

    Attributes:
        names: C class names, the labels of detections.
        embeddings: (C, 512) float32, text embeddings of "a " + name, not normalised.
    """

    names: tuple[str, ...]
    embeddings: Float32


def load_vocabulary(spec: str | Path, model_weights: str | Path = "cached") -> Vocabulary:
    """Load `lvis`, words separated by commas, or a file with one name per line (# starts a comment).

    Args:
        spec: the vocabulary.
        model_weights: with "random:SEED" the embeddings of words are random as well, and nothing needs to be fetched.

    Raises:
        UsageError: there is no name, a duplicate, a name with several meanings in LVIS, or no such file.
        ModelNotCachedError: LVIS's files or the text encoder are not on this machine; the message gives the command.
    """
    if spec == "lvis":
        return lvis()
    names = read_names(spec)
    seed = seed_of(model_weights)
    if seed is not None:
        return Vocabulary(names, np.stack([_random_embedding(name, seed) for name in names]))
    known = lvis()
    rows = {name: row_of(name, known.names) for name in names}
    unknown = [name for name, row in rows.items() if row is None]
    encoded = encode(unknown) if unknown else {}
    chosen = [encoded[name] if row is None else known.embeddings[row] for name, row in rows.items()]
    return Vocabulary(names, np.stack(chosen))


def read_names(spec: str | Path) -> tuple[str, ...]:
    """Return the names of a vocabulary other than LVIS's, without duplicates."""
    file = Path(spec)
    if isinstance(spec, Path) or ("," not in spec and file.is_file()):
        try:
            lines = read_regular(file.expanduser(), _MOST_NAMES).decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"vocabulary {file}: {error}; a text file with one name per line was expected") from error
        words: Iterable[str] = (line.partition("#")[0] for line in lines)
    else:
        if "," not in spec and (file.suffix == ".txt" or len(file.parts) > 1):
            raise UsageError(f"vocabulary: there is no file {file.absolute()}")
        words = spec.split(",")
    names = tuple(word.strip() for word in words if word.strip())
    if not names:
        raise UsageError(
            f'vocabulary {str(spec)!r} has no names; use "lvis", "bird,car" or a file with a name per line'
        )
    seen: dict[str, str] = {}
    for name in names:
        if (same := seen.setdefault(name.casefold(), name)) is not name:
            raise UsageError(f"vocabulary {str(spec)!r} contains {name!r} twice (first as {same!r}); remove one")
    return names


def lvis() -> Vocabulary:
    """Return LVIS v1's 1,203 names in order of category id, spelled as in its files, with Detic's embeddings."""
    table = weights.path("lvis", "lvis_v1_clip_a+cname.npy")
    info = weights.path("lvis", "lvis_v1_train_cat_info.json")
    embeddings = np.load(table, allow_pickle=False).astype(np.float32)
    categories = sorted(json.loads(info.read_text(encoding="utf-8")), key=lambda category: int(category["id"]))
    names = tuple(str(category["name"]) for category in categories)
    if embeddings.shape != (len(names), WIDTH):
        raise WeightsError(table, f"has shape {embeddings.shape} instead of ({len(names)}, {WIDTH})")
    return Vocabulary(names, embeddings)


def row_of(word: str, names: Sequence[str]) -> int | None:
    """Return the row of a word in LVIS, ignoring case and underscores and, if necessary, a name's part in parentheses.

    Raises:
        UsageError: several names match ("pan"); the message lists them.
    """
    folded = word.replace("_", " ").casefold()
    exact = [row for row, name in enumerate(names) if name.replace("_", " ").casefold() == folded]
    rows = exact or [row for row, name in enumerate(names) if plain(name) == folded]
    if len(rows) > 1:
        raise UsageError(f"{word!r} has several meanings in LVIS; use one of: {', '.join(names[row] for row in rows)}")
    return rows[0] if rows else None


def encode(names: Sequence[str]) -> Mapping[str, Float32]:
    """Return CLIP's text embeddings of any words, from the cache if they have been computed before."""
    model = hub.CLIP
    file = cache_folder() / "vocabulary" / f"{model.repo.rpartition('/')[2]}-{model.commit[:8]}.npz"
    cached = _read(file)
    missing = [name for name in names if name not in cached]
    if not missing:
        return cached
    rows = clip_encoder()(missing)
    if rows.shape != (len(missing), WIDTH):
        raise WeightsError("text encoder", f"returned shape {rows.shape} instead of ({len(missing)}, {WIDTH})")
    return _add(file, dict(zip(missing, rows, strict=True)))


def clip_encoder() -> Callable[[Sequence[str]], Float32]:
    """Return CLIP ViT-B/32's text encoder: C names -> (C, 512) float32 embeddings of "a " + name, not normalised."""
    folder = weights.path("clip_text")
    try:
        import torch
        from transformers import AutoTokenizer, CLIPTextModelWithProjection
    except ImportError as error:
        raise MissingExtraError(error.name or "transformers", "text", "a vocabulary of words not in LVIS") from error
    from fgfast.backends.torch_flags import set_flags

    set_flags()
    hub_files.check(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = CLIPTextModelWithProjection.from_pretrained(
            folder, local_files_only=True, weights_only=True, trust_remote_code=False
        ).eval()
    except Exception as error:  # whatever the library makes of files that are none
        raise WeightsError(
            folder, f"cannot be loaded as CLIP's text encoder: {error}. Remove it and pull it"
        ) from error

    def embed(names: Sequence[str]) -> Float32:
        texts = [PROMPT + name for name in names]
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            found = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return np.asarray(found.text_embeds.numpy(), np.float32)

    return embed


def _read(file: Path) -> dict[str, Float32]:
    """Return the embeddings in the cache that this user's fgfast computed; none where the file is another."""
    try:
        data = read_regular(file, _MOST_BYTES)
        if keyed_notes.read(_note_of(file), _KIND, file).get("sha256") != hashlib.sha256(data).hexdigest():
            return {}
        with np.load(io.BytesIO(data), allow_pickle=False) as content:
            rows = content["embeddings"].astype(np.float32)
            return dict(zip(content["names"].tolist(), rows, strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}  # absent or incomplete


def _add(file: Path, fresh: Mapping[str, Float32]) -> dict[str, Float32]:
    """Add embeddings to the cache; return all that it contains then."""
    with locked(Target.file(file.with_suffix(".lock"))):
        known = {**_read(file), **fresh}
        data = io.BytesIO()
        np.savez(data, names=np.array(list(known)), embeddings=np.stack(list(known.values())))
        write_file(Target.file(file), data.getvalue(), sync=False)
        digest = hashlib.sha256(data.getvalue()).hexdigest()
        keyed_notes.write(_note_of(file), _KIND, file, Stamp.of(file), {"sha256": digest})
    return known


def _note_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.checked")


def _random_embedding(name: str, seed: int) -> Float32:
    """(512,) float32 for a word, the same on every machine, with about the norm of CLIP's embeddings (10)."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    numbers = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
    return np.asarray(numbers.standard_normal(WIDTH, dtype=np.float32) * np.float32(10 / WIDTH**0.5), np.float32)
