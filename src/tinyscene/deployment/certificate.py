"""What stands beside an exported file: how far it is from the classifier, what it costs, and the hashes of both."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyscene.accounting import Ledger
from tinyscene.deployment.parity import Parity
from tinyscene.errors import InputError


@dataclass(frozen=True)
class Certificate:
    """A file's certificate.

    Attributes:
        file_sha256, bytes_on_disk: of the file that it is for.
        weights: a hash of the classifier's tensors.
        runtime: what ran the file, with its version.
        precision: of the weights.
        front_end: inside or outside.
        way: of the ways to write this format, the one that came out right; empty where there is one.
        refused: the ways that did not, and why.
        data: the clips that were compared beside the generated sounds; empty where there were none.
        versions: of what wrote it.
        parity: what was found.
        clip_s, ledger: what the classifier costs for a clip of so many seconds, and the file with it: it holds the same
            tensors and computes the same. Weights of 16 bits count as 32 where the format widens them.
        step_samples: that a stream takes at a time, compared at the end of sounds; 0 where the file takes clips.
    """

    file_sha256: str
    bytes_on_disk: int
    weights: str
    runtime: str
    precision: str
    front_end: str
    way: str
    refused: dict[str, str]
    data: str
    versions: dict[str, str]
    parity: Parity
    clip_s: float
    ledger: Ledger
    step_samples: int = 0

    @classmethod
    def load(cls, file: Path) -> "Certificate":
        """Of an exported file. Raises InputError where it is missing, unreadable, or is another file's."""
        path = certificate_path(file)
        if not path.is_file():
            raise InputError(f"{file}: {path.name} is not beside it; accepted: the two files that export writes")
        try:
            said = json.loads(path.read_text())
            said |= {"parity": Parity.from_json(said["parity"]), "ledger": Ledger.from_json(said["ledger"])}
            certificate = cls(**said)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: no certificate ({error!r}); accepted: one that export wrote") from error
        if certificate.file_sha256 != sha256(file):
            raise InputError(f"{path}: not of this {file.name}; accepted: the two files of one export")
        return certificate

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "parity": self.parity.to_json(), "ledger": self.ledger.to_json()}


def certificate_path(file: Path) -> Path:
    """`scene.onnx.json` of `scene.onnx`."""
    return file.with_name(f"{file.name}.json")


def sha256(file: Path) -> str:
    """Of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
