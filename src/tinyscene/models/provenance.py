"""The data that a classifier was trained, stopped or calibrated on: part of its state, for every stage."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Provenance:
    """Training recordings as hashes (`Clips.recording_hashes`), their devices, and the length of training clips.

    `clip_s` is that of the last training, in seconds; None if unknown.
    """

    recordings: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    clip_s: float | None = None

    def merged(self, later: "Provenance") -> "Provenance":
        """Merged with a later stage's: recordings and devices of both, and the later length if known."""
        return Provenance(
            _union(self.recordings, later.recordings),
            _union(self.devices, later.devices),
            self.clip_s if later.clip_s is None else later.clip_s,
        )

    def to_json(self) -> dict[str, Any]:
        return {"recordings": " ".join(self.recordings), "devices": self.devices, "clip_s": self.clip_s}

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> "Provenance":
        return cls(tuple(held["recordings"].split()), tuple(held["devices"]), held["clip_s"])

    def to_tensor(self) -> Tensor:
        """As text, (bytes,), uint8: what a `state_dict` can hold and safetensors can write."""
        return torch.tensor(list(json.dumps(self.to_json()).encode()), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, text: Tensor) -> "Provenance":
        return cls.from_json(json.loads(bytes(text.tolist())))


def _union(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*first, *second}))
