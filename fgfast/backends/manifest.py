"""The manifest: what the file of a graph contains, written beside it as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fgfast import graphs
from fgfast.errors import GraphError
from fgfast.graphs import Contract, Port
from fgfast.writing import Target, write_file


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the file of a graph contains and how it was made.

    Attributes:
        contract: of the graph.
        model: the user's name for it, "sam_vit_l".
        weights: "sha256 ..." of the checkpoint, or "random:SEED".
        precision: "fp32", "bf16" or "fp16", of the matrix products.
        opset: of ONNX.
        code: versions of fgfast and of the packages that made the file.
        files: name -> SHA-256 of every file that belongs to the graph; the first is the graph itself.
        tolerances: output -> largest difference and rms that the parity check allowed.
        measured: results of the parity check, one record per run.
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
    outdated: str = field(default="", compare=False)

    def to_json(self) -> str:
        """Return the manifest as JSON, without the contract's prose, so that rewording it changes no file."""
        facts = asdict(self)
        facts["contract"] = {"arguments": dict(self.contract.arguments), **self.contract.signature()}
        del facts["outdated"]
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
            facts = json.loads(path.read_text(encoding="utf-8"))
            stored = facts.pop("contract")
            inputs, outputs = (
                tuple(Port(port["name"], port["dtype"], tuple(port["shape"])) for port in stored[side])
                for side in ("inputs", "outputs")
            )
            arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.get("arguments", {}).items()}
            contract = Contract(stored["graph"], inputs, outputs, stored["version"], arguments)
            today, outdated = _today(contract)
            return cls(today, **{**facts, "outdated": outdated})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise GraphError(f"{path} is not the manifest of a graph ({error}); export the model again") from error


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
    except (TypeError, ValueError, KeyError) as error:
        return stored, f"was exported with arguments that {graph}'s contract does not take ({error})"
    if today == stored:
        return today, ""
    if today.version != stored.version:
        return stored, f"was exported for version {stored.version} of {graph}'s contract, which now has {today.version}"
    return stored, f"was exported with other inputs or outputs than {graph}'s contract has now"
