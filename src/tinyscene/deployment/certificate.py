"""The certificate beside an exported file: its difference from the classifier, its costs, and the hashes of both."""

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
        file_sha256, bytes_on_disk: of the file.
        weights: a hash of the classifier's tensors.
        runtime: that ran the file, with its version.
        precision: of the weights.
        front_end: inside or outside.
        way: of the ways to write this format, the one that succeeded; empty where there is only one.
        refused: the ways that failed, and why.
        data: the clips compared beside the generated sounds; empty where there were none.
        versions: of the packages that wrote it.
        parity: the result of the comparison.
        clip_s, ledger: the cost of the classifier for clips of this length in s, and of the file, which holds the same
            tensors and computes the same. 16-bit weights count as 32 bits where the format widens them.
        step_samples: in a step of a stream, compared at the end of sounds; 0 where the file takes clips.
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
        """The certificate of a file. Raises InputError where it is missing, unreadable, or is another file's."""
        path = certificate_path(file)
        if not path.is_file():
            raise InputError(f"{file}: {path.name} is not beside it; accepted: both files that export writes")
        try:
            values = json.loads(path.read_text())
            values |= {"parity": Parity(**values["parity"]), "ledger": Ledger.from_json(values["ledger"])}
            certificate = cls(**values)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: no certificate ({error!r}); accepted: one that export wrote") from error
        if certificate.file_sha256 != sha256(file):
            raise InputError(f"{path}: not the certificate of this {file.name}; accepted: both files of one export")
        return certificate

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"ledger": self.ledger.to_json()}


def certificate_path(file: Path) -> Path:
    """`scene.onnx.json` of `scene.onnx`."""
    return file.with_name(f"{file.name}.json")


def sha256(file: Path) -> str:
    """The hash of a file's contents."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
