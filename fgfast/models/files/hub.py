"""Snapshots of the Hugging Face hub, in the cache that transformers itself uses. No torch here.

HF_HOME, HF_HUB_CACHE and HF_ENDPOINT (a mirror) mean what they mean there; HF_HUB_OFFLINE and FGFAST_OFFLINE forbid
fetching. `Snapshot.find` and `Snapshot.verify` read the cache's folders themselves and need no package.
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
        commit: which version; never "main", which may change.
        weights: the file with the weights.
        sha256, size: of that file.
        others: the other files that loading needs.
        optional: files that are fetched if they are there.
    """

    repo: str
    commit: str
    weights: str
    sha256: str
    size: int
    others: tuple[str, ...]
    optional: tuple[str, ...] = ("special_tokens_map.json", "added_tokens.json", "vocab.txt")

    def place(self) -> Path:
        """The folder of this version in the hub's cache; it may not exist."""
        return _cache() / f"models--{self.repo.replace('/', '--')}" / "snapshots" / self.commit

    def find(self) -> Path | None:
        """The folder, if every file is there."""
        place = self.place()
        return place if all((place / file).is_file() for file in (self.weights, *self.others)) else None

    def pull(self) -> Path:
        """Fetch what is missing, with huggingface_hub, which comes with transformers."""
        if found := self.find():
            return found
        for variable in ("FGFAST_OFFLINE", "HF_HUB_OFFLINE"):
            if switched_on(variable):
                raise OfflineError(
                    f"{self.repo} of the Hugging Face hub is not fetched while {variable} is set. Unset it, or copy "
                    f"its files to {self.place()}."
                )
        try:
            from huggingface_hub import snapshot_download
        except ImportError:
            raise MissingExtraError("huggingface_hub", "text", f"fetching {self.repo}") from None
        try:
            files = [self.weights, *self.others, *self.optional]
            snapshot_download(self.repo, revision=self.commit, allow_patterns=files, cache_dir=_cache())
        except Exception as error:  # its own errors, httpx's or requests's: they differ from version to version
            raise DownloadError(
                f"{self.repo} could not be fetched from the Hugging Face hub: {error}. Try again to go on from where "
                "it stopped, or set HF_ENDPOINT to the address of a mirror."
            ) from error
        found = self.find()
        if found is None:
            raise DownloadError(f"{self.repo} at {self.commit} lacks one of {', '.join([self.weights, *self.others])}")
        return found

    def verified(self, found: Path) -> bool:
        """Whether the weights were hashed once and have not been touched since."""
        return digests.recorded(found / self.weights, self._note()) == self.sha256

    def verify(self, found: Path, again: bool = False) -> None:
        """Hash the weights, unless they were before; raises WeightsError where they differ."""
        digests.checked(found / self.weights, f"sha256:{self.sha256}", self._note(), again)

    def _note(self) -> Path:
        """Ours, so that nothing is added to the hub's folders."""
        return cache_folder() / "models" / f"{self.repo.replace('/', '--')}.{self.commit[:8]}.checked"


def _cache() -> Path:
    """The hub's cache folder, by huggingface_hub's rules."""
    if chosen := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(chosen).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(general).expanduser() / "huggingface" / "hub"


_DETECTOR_FILES = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
# Commits, SHA-256 and sizes: not from the hub itself, but each found alike in several public loaders that pin them, for
# the detectors kSources beside a C++ port's gdino/GroundingDino.h, which says that they are the hub's LFS object ids.
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
