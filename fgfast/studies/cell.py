"""One training of a study, and the strategies of masking that it may use."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, get_args

from fgfast.errors import UnknownNameError, UsageError

Arm = Literal["x", "x_fg", "mixed-same", "mixed-rand", "mixed-next", "only-bg", "x-box"]
"""What of a sample is shown: the stored image; its subject alone; its subject on the background of another image of its
class, of any class, of the next class; its background alone (the subject's box tiled over); the image cropped to the
subject's box."""
ARMS: tuple[Arm, ...] = get_args(Arm)

Where = Literal["none", "early", "late", "both"]
Stage = Literal["last", "second-last"]
Pooling = Literal["native", "class", "patch", "both", "fg"]
ClassToken = Literal["keep", "drop", "block"]
SHARE = 0.25
"""Share of subject from which on a cell is foreground, where nothing else is said; another one is in a row's name."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a model is kept from the background (Masking Strategies, arXiv 2308.12127).

    Attributes:
        where: "none"; "early": pixels are masked before anything else; "late": features are; "both".
        stage: the stage (CNN, Swin) or block (ViT) after which features are masked.
        pooling: what the classifier sees: "native" is the model's own; "class" the class token; "patch" the mean over
            cells; "both" the two concatenated; "fg" the mean over foreground cells.
        class_token: what becomes of the class token, which has seen the background when late masking comes: "keep";
            "drop" does without it; "block" hides the background's keys from attention from `stage` on.
        share: a cell is foreground where at least this share of it is subject, 0..1; a subject keeps at least one cell.
        fill: what early masking writes over the background: "black", "mean", "blur" or "noise".
    """

    where: Where = "none"
    stage: Stage = "last"
    pooling: Pooling = "native"
    class_token: ClassToken = "keep"
    share: float = SHARE
    fill: str = "black"

    def __post_init__(self) -> None:
        for name, known in (("where", Where), ("stage", Stage), ("pooling", Pooling), ("class_token", ClassToken)):
            if getattr(self, name) not in get_args(known):
                raise UnknownNameError(name, getattr(self, name), get_args(known))
        if not 0 < self.share <= 1:
            raise UsageError(f"the share of a foreground cell must be above 0 and at most 1, not {self.share}")

    @property
    def late(self) -> bool:
        """Whether features are masked."""
        return self.where in ("late", "both")

    @property
    def early(self) -> bool:
        """Whether pixels are masked."""
        return self.where in ("early", "both")

    @property
    def by_cell(self) -> bool:
        """Whether cells of features are foreground or background, by their share of subject."""
        return self.late or self.pooling == "fg"

    @property
    def within(self) -> Strategy:
        """What of it is left to the model where pixels are masked before, at the stored size."""
        where: Where = {"early": "none", "both": "late"}.get(self.where, self.where)  # type: ignore[assignment]
        return replace(self, where=where)

    @property
    def name(self) -> str:
        """Its name in tables, of a backbone with a class token: that is named wherever late masking leaves one."""
        return self.title(tokens=True)

    def title(self, tokens: bool) -> str:
        """Return its name in tables, for a backbone with a class token, or without."""
        parts = [self.where, self.stage if self.late else "", self.pooling if self.pooling != "native" else ""]
        if not tokens:
            pass
        elif self.late and self.class_token != "keep":
            parts.append(f"class token {self.class_token}")
        elif self.late and (self.pooling in ("native", "class", "both") or self.stage == "second-last"):
            # After the second-last block the token still speaks to the patches, whatever is pooled.
            parts.append("class token keep")
        parts.append(self.fill if self.early and self.fill != "black" else "")
        if self.by_cell and self.share != SHARE:
            parts.append(f"share {self.share:g}")
        return ", ".join(part for part in parts if part)


# Backbones of these families have no class token (timm's names).
_WITHOUT_TOKENS = ("convnext", "efficientnet", "resnet", "swinv2", "tf_efficientnet", "wide_resnet")


def plain_name(backbone: str) -> str:
    """Return the name of a backbone without folder and, of a file of weights, without its format."""
    name = backbone.replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and suffix in ("safetensors", "pth", "pt", "bin") else name


@dataclass(frozen=True, slots=True)
class Cell:
    """One training.

    Attributes:
        study: "crossval", "masking", ...
        backbone: timm's name of the model, or a file.
        train: what it is trained on.
        strategy: how it is kept from the background.
        recipe: the recipe's name; see `fgfast.studies.recipes`.
        seed: of initial weights, order and augmentation.
        pretrained: whether weights are loaded; else they are random.
    """

    study: str
    backbone: str
    train: Arm = "x"
    strategy: Strategy = field(default_factory=Strategy)
    recipe: str = "quick"
    seed: int = 0
    pretrained: bool = True

    def __post_init__(self) -> None:
        if self.train not in ARMS:
            raise UnknownNameError("arm", str(self.train), ARMS)

    @property
    def strategy_name(self) -> str:
        """The strategy's name in tables; a class token is named unless the backbone's family has none."""
        name = plain_name(self.backbone).removeprefix("test_")
        return self.strategy.title(tokens=not name.startswith(_WITHOUT_TOKENS))

    @property
    def name(self) -> str:
        """Its name in the ledger of a grid and as a folder: readable, and different for different cells."""
        text = json.dumps(asdict(self), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        backbone = plain_name(self.backbone).partition(".")[0]
        recipe = self.recipe.partition(",")[0]  # what is changed of it is in the digest
        return f"{backbone}-{self.train}-{self.strategy.where}-{recipe}-{self.seed}-{digest}"
