"""The manifest: what the file of a graph contains, written beside it as JSON."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fgfast import graphs, tolerances
from fgfast.errors import GraphError
from fgfast.files import read_regular
from fgfast.graphs import Contract, Port
from fgfast.methods import QUANTISED
from fgfast.writing import Target, write_file

# A manifest has some kilobytes; the largest tensor of a contract some hundred million values.
_MOST_BYTES, _MOST_VALUES, _MOST_AXES = 4 << 20, 1 << 32, 8
_SHOWN = 200
_DTYPES = ("uint8", "int64", "float32", "float16", "bfloat16", "bool")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the file of a graph contains and how it was made.

    Attributes:
        contract: of the graph.
        model: the user's name for it, "sam_vit_l".
        weights: "sha256 ..." of the checkpoint, or "random:SEED".
        precision: one of fgfast.methods.PRECISIONS, of the matrix products.
        opset: of ONNX.
        code: versions of fgfast and of the packages that made the file.
        files: name -> SHA-256 of every file that belongs to the graph; the first is the graph itself.
        tolerances: output -> largest difference and rms that the parity check allowed.
        measured: results of the parity check, one record per run.
        quantisation: of a quantised graph: where its scales come from, and "iou", the mean and the least IoU of its
            masks with those in float32; empty for any other graph.
        outdated: set by `read`: why this fgfast must not use the file, worded to follow the file's name; empty for a
            usable one.
    """

    contract: Contract
    model: str
    weights: str
    precision: str
    opset: int
    code: dict[str, str]
    files: dict[str, str]
    tolerances: dict[str, dict[str, float]] = field(default_factory=dict)
    measured: list[dict[str, Any]] = field(default_factory=list)
    quantisation: dict[str, Any] = field(default_factory=dict)
    outdated: str = field(default="", compare=False)

    def to_json(self) -> str:
        """Return the manifest as JSON, without the contract's prose, so that rewording it changes no file."""
        facts = asdict(self)
        facts["contract"] = {"arguments": dict(self.contract.arguments), **self.contract.signature()}
        del facts["outdated"]
        if not self.quantisation:
            del facts["quantisation"]
        return json.dumps(facts, indent=1) + "\n"

    def write(self, path: Path) -> None:
        """Write the manifest to a file."""
        write_file(Target.file(path), self.to_json().encode())

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest and compare its contract with today's.

        Raises:
            GraphError: the file is not a manifest.
        """
        try:
            facts = json.loads(read_regular(path, _MOST_BYTES).decode("utf-8"))
            stored = facts.pop("contract")
            inputs, outputs = (tuple(map(_port, stored[side])) for side in ("inputs", "outputs"))
            arguments = {k: _argument(v) for k, v in stored.get("arguments", {}).items()}
            contract = Contract(_text(stored["graph"]), inputs, outputs, _number(stored["version"]), arguments)
            today, outdated = _today(contract)
            found = cls(today, **{**facts, "outdated": outdated})
            _check(found)
            return found if outdated else replace(found, outdated=masks_unproven(found))
        # RecursionError: lists in lists without end.
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            problem = str(error)[:_SHOWN] or type(error).__name__
            raise GraphError(
                f"{path} is not the manifest of a graph ({problem}); remove it and export the model again"
            ) from error


def _port(stored: Any) -> Port:
    shape = tuple(_text(size) if isinstance(size, str) else _number(size) for size in stored["shape"])
    if math.prod(size for size in shape if isinstance(size, int)) > _MOST_VALUES or len(shape) > _MOST_AXES:
        raise ValueError(f"a tensor of shape {shape}")
    if (dtype := stored["dtype"]) not in _DTYPES:
        raise ValueError(f"the dtype {dtype!r}; {', '.join(_DTYPES)} are known")
    return Port(_text(stored["name"]), dtype, shape)


def _argument(value: Any) -> int | str | tuple[int, ...]:
    if isinstance(value, list):
        return tuple(map(_number, value))
    return _text(value) if isinstance(value, str) else _number(value)


def _number(value: Any) -> int:
    """Return a size or a version."""
    if type(value) is not int or not 0 <= value <= _MOST_VALUES:
        raise ValueError(f"{str(value)[:_SHOWN]!r} where a number from 0 to {_MOST_VALUES:,} was expected")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _SHOWN or not value.isprintable():
        raise ValueError(f"{str(value)[:_SHOWN]!r} where a short text was expected")
    return value


def _check(found: Manifest) -> None:
    """Raise ValueError or TypeError unless every field has its type; files must be in the manifest's folder."""
    for text in (found.model, found.weights, found.precision, *found.code, *found.code.values()):
        _text(text)
    _number(found.opset)
    for name, digest in found.files.items():
        if Path(_text(name)).name != name or name == ".." or "\\" in name or ":" in name:
            raise ValueError(f"the file {name!r}, which is not in its folder")
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"{str(digest)[:_SHOWN]!r} where a SHA-256 was expected")
    if not found.files or not isinstance(found.tolerances, dict) or not isinstance(found.measured, list):
        raise ValueError("it lacks files, tolerances or measurements")
    if not isinstance(found.quantisation, dict):
        raise ValueError("its quantisation is not a table")


def masks_unproven(found: Manifest) -> str:
    """Return why a quantised graph must not be used: its masks were not compared, or are not good enough; else ""."""
    # SAM's decoder is float32 in every precision.
    if found.precision not in QUANTISED or found.contract.graph == "sam_mask_decoder":
        return ""
    mean, least = (found.quantisation.get("iou", {}).get(name) for name in ("mean", "least"))
    if not (isinstance(mean, float) and isinstance(least, float)):
        return f"is quantised to {found.precision}, and its manifest does not say that its masks were checked"
    # Written so that NaN fails.
    if not (mean >= tolerances.QUANTISED_MASK_IOU and least >= tolerances.QUANTISED_LEAST_IOU):
        return (
            f"is quantised to {found.precision}, and its masks differ too much from those in float32: mean IoU "
            f"{mean:.4f}, least {least:.4f}; {tolerances.QUANTISED_MASK_IOU} and {tolerances.QUANTISED_LEAST_IOU} are "
            "needed"
        )
    return ""


def _today(stored: Contract) -> tuple[Contract, str]:
    """Compare a stored contract with the one that today's constructor makes from its arguments.

    Returns:
        Today's contract and "" where both are equal; else the stored one and why its file must not be used.
    """
    graph = stored.graph
    if graph not in graphs.GRAPHS:
        return stored, f"holds a graph {graph!r}, which this fgfast does not have"
    if not stored.arguments:
        return stored, f"was exported by an older fgfast, which did not keep the arguments of {graph}'s contract"
    try:
        today = graphs.GRAPHS[graph](**stored.arguments)
    except (TypeError, ValueError, KeyError, ArithmeticError) as error:
        return stored, f"was exported with arguments that {graph}'s contract does not take ({error})"
    if today == stored:
        return today, ""
    if today.version != stored.version:
        return stored, f"was exported for version {stored.version} of {graph}'s contract, which now has {today.version}"
    return stored, f"was exported with other inputs or outputs than {graph}'s contract has now"
