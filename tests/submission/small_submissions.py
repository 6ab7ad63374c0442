"""Evaluation sets in TAU's layout, models and authors' files, all of them tiny."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from tinyscene.compression import HalfPrecision
from tinyscene.features import LogMel
from tinyscene.models import create_model
from tinyscene.models.classifier import SceneClassifier
from tinyscene.submission import Edition

CLIPS = 12
# What the list of 2025 tells of each clip in turn.
CLIP_DEVICES = ("a", "unknown", "s1", "b")


def evaluation_set(root: Path, edition: Edition, sound: Callable[..., Path]) -> Path:
    """audio/0.wav ... and evaluation_setup/fold1_test.csv, as published: no labels; from 2025 on devices, CRLF."""
    rows = [("filename", "device_id")] if edition.package else [("filename",)]
    for number in range(CLIPS):
        sound(root / "audio" / f"{number}.wav", 0.6)
        device = (CLIP_DEVICES[number % len(CLIP_DEVICES)],) if edition.package else ()
        rows.append((f"audio/{number}.wav", *device))
    (root / "evaluation_setup").mkdir()
    text = "".join("\t".join(row) + ("\r\n" if edition.package else "\n") for row in rows)
    (root / "evaluation_setup" / "fold1_test.csv").write_text(text, newline="")
    return root


def classifier(edition: Edition, seed: int = 0, filters: tuple[int, int, int] = (4, 4, 6)) -> SceneClassifier:
    """With 16-bit weights, and batch norm and standardization that have seen noise."""
    torch.manual_seed(seed)
    classes = edition.rules.classes
    network = create_model("baseline2021", classes=len(classes), filters=filters, dense=12, bands=40, seed=0)
    made = SceneClassifier(LogMel(8000, 256, 40, hop_length=200), network, classes)
    waveforms = torch.randn(8, 4800) * torch.logspace(-3, -0.5, 8)[:, None]
    made.standardize.fit([made.frontend(waveforms)])
    made.train()
    with torch.no_grad():
        made(waveforms)
    return HalfPrecision().shape(made.eval())


def runs(folder: Path, edition: Edition, systems: int = 2) -> list[Path]:
    """Saved models: for 2024 one a split, of which the last is the largest; for 2025 device a has its own."""
    found = []
    for index in range(systems):
        run = folder / f"run-{index}"
        for number, split in enumerate(edition.outputs.values()):
            wider = (4, 4, 8) if split == "split_100" else (4, 4, 6)
            classifier(edition, seed=10 * index + number, filters=wider).save(run / split)
        if edition.package and index == 0:
            classifier(edition, seed=7, filters=(4, 6, 8)).save(run / "devices" / "a")
        found.append(run)
    return found


def authors_file(path: Path, edition: Edition, systems: int = 2) -> Path:
    """Everything filled in."""
    affiliation = {"abbreviation": "JKU", "institute": "University", "department": "Audio", "location": "Linz, Austria"}
    listed: list[dict[str, Any]] = [
        {
            "name": f"Small network {index}",
            "abbreviation": f"small{index}",
            "description": dict.fromkeys(edition.description, "pruning"),
            "external_datasets": [],
            "source_code": "https://example.net/code",
        }
        | ({"inference_code": "https://example.net/inference"} if edition.package else {})
        for index in range(1, systems + 1)
    ]
    authors = [
        {"lastname": "O'Neill", "firstname": "Ada", "email": "ada@jku.at", "affiliation": affiliation},
        {"lastname": "Van Hove", "firstname": "Bo", "email": "bo@jku.at", "affiliation": affiliation},
    ]
    authors[1]["corresponding"] = True
    path.write_text(yaml.safe_dump({"team": "VanHove_JKU", "authors": authors, "systems": listed}))
    return path
