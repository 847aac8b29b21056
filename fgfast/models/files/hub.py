"""Snapshots of the Hugging Face hub, in the cache that transformers uses. No torch here.

HF_HOME, HF_HUB_CACHE and HF_ENDPOINT (a mirror) have the hub's meaning; HF_HUB_OFFLINE and FGFAST_OFFLINE forbid
fetching. `Snapshot.find` and `Snapshot.verify` read the cache's folders directly and need no package.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fgfast.errors import DownloadError, MissingExtraError, OfflineError
from fgfast.models.files import digests
from fgfast.transfer import cache_folder, switched_on


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository of the hub at one commit.

    Attributes:
        repo: owner/name.
        commit: of the version; never "main", which may change.
        weights: the file with the weights.
        sha256, size: of that file, in hexadecimal digits and bytes.
        others: the other files that are needed to load the model.
        optional: files that are fetched where they exist.
    """

    repo: str
    commit: str
    weights: str
    sha256: str
    size: int
    others: tuple[str, ...]
    optional: tuple[str, ...] = ("special_tokens_map.json", "added_tokens.json", "vocab.txt")

    def place(self) -> Path:
        """Return the folder of this version in the hub's cache; it may not exist."""
        return _cache() / f"models--{self.repo.replace('/', '--')}" / "snapshots" / self.commit

    def find(self) -> Path | None:
        """Return the folder if all files exist."""
        place = self.place()
        return place if all((place / file).is_file() for file in (self.weights, *self.others)) else None

    def pull(self) -> Path:
        """Fetch missing files with huggingface_hub, which is a dependency of transformers."""
        if found := self.find():
            return found
        for variable in ("FGFAST_OFFLINE", "HF_HUB_OFFLINE"):
            if switched_on(variable):
                raise OfflineError(
                    f"{self.repo} is not fetched from the Hugging Face hub while {variable} is set. Unset it, or copy "
                    f"its files to {self.place()}."
                )
        try:
            from huggingface_hub import snapshot_download
        except ImportError:
            raise MissingExtraError("huggingface_hub", "text", f"fetching {self.repo}") from None
        try:
            files = [self.weights, *self.others, *self.optional]
            snapshot_download(self.repo, revision=self.commit, allow_patterns=files, cache_dir=_cache())
        except Exception as error:  # its own errors, httpx's or requests's, depending on the version
            raise DownloadError(
                f"{self.repo} could not be fetched from the Hugging Face hub: {error}. Try again to resume the "
                "transfer, or set HF_ENDPOINT to the address of a mirror."
            ) from error
        found = self.find()
        if found is None:
            raise DownloadError(f"{self.repo} at {self.commit} lacks one of {', '.join([self.weights, *self.others])}")
        return found

    def verified(self, found: Path) -> bool:
        """Return whether the weights have been hashed and have not changed since."""
        return digests.recorded(found / self.weights, self._note()) == self.sha256

    def verify(self, found: Path, again: bool = False) -> None:
        """Hash the weights, unless that was done before; raises WeightsError where they differ."""
        digests.checked(found / self.weights, f"sha256:{self.sha256}", self._note(), again)

    def _note(self) -> Path:
        """Return the path of the digest's note, which is kept out of the hub's folders."""
        return cache_folder() / "models" / f"{self.repo.replace('/', '--')}.{self.commit[:8]}.checked"


def newest(repo: str) -> Path | None:
    """Return the folder of the version of a repository that was last fetched by its name alone; None without one.

    Args:
        repo: owner/name.
    """
    top = _cache() / f"models--{repo.replace('/', '--')}"
    try:
        commit = (top / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    place = top / "snapshots" / commit
    return place if commit.isalnum() and place.is_dir() else None


def _cache() -> Path:
    """Return the hub's cache folder, by huggingface_hub's rules."""
    if chosen := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(chosen).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(general).expanduser() / "huggingface" / "hub"


_DETECTOR_FILES = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
# Commits, SHA-256 and sizes are not from the hub itself, but agree in several public loaders that pin them; for the
# detectors one is kSources beside a C++ port's gdino/GroundingDino.h, according to which they are the hub's LFS ids.
GROUNDING_DINO_TINY = Snapshot(
    "IDEA-Research/grounding-dino-tiny",
    "a2bb814dd30d776dcf7e30523b00659f4f141c71",
    "model.safetensors",
    "1a2412ef99bd74bcd3c2a246fa1e48581f8889a1300c9051974741314fc042f3",
    689_359_096,
    _DETECTOR_FILES,
)
GROUNDING_DINO_BASE = Snapshot(
    "IDEA-Research/grounding-dino-base",
    "12bdfa3120f3e7ec7b434d90674b3396eccf88eb",
    "model.safetensors",
    "5548f844c928c4b6f411fa8cbcc2bfa8dbbba437cb1d513975519f93c2a9ed21",
    933_400_872,
    _DETECTOR_FILES,
)
CLIP = Snapshot(
    "openai/clip-vit-base-patch32",
    "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
    "pytorch_model.bin",
    "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
    605_247_071,
    ("config.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"),
)
