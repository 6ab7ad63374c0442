"""A submission of each edition, built once; tests spoil copies of it."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from small_submissions import authors_file, evaluation_set, runs

from tinyscene.data import Clips
from tinyscene.submission import build, evaluation_clips, get_edition
from tinyscene.submission.edition import TASK, Edition


class Built(NamedTuple):
    """What went into a submission, and where it is."""

    edition: Edition
    audio: Path
    authors: Path
    runs: list[Path]
    out: Path

    @property
    def list(self) -> Path:
        return self.audio / "evaluation_setup" / "fold1_test.csv"

    @property
    def clips(self) -> Clips:
        return evaluation_clips(self.audio, self.edition)

    @property
    def inference(self) -> Path:
        return self.out / "inference"

    def place(self, index: int = 1) -> Path:
        """The folder of a system."""
        return self.out / TASK / f"VanHove_JKU_{TASK}_{index}"

    def copied(self, out: Path, systems: int = 2) -> "Built":
        shutil.copytree(self.out, out)
        if systems == 1:
            shutil.rmtree(out / TASK / self.place(2).name)
        return self._replace(out=out)


@pytest.fixture(scope="session")
def submitted(tmp_path_factory: pytest.TempPathFactory, sound: Callable[..., Path]) -> Callable[[int], Built]:
    """submitted(2024): two systems of that edition."""

    @cache
    def make(year: int) -> Built:
        folder, edition = tmp_path_factory.mktemp(f"edition{year}"), get_edition(year)
        audio = evaluation_set(folder / "evaluation", edition, sound)
        models, authors = runs(folder, edition), authors_file(folder / "authors.yaml", edition)
        report = folder / "report.pdf"
        report.write_bytes(b"%PDF-1.4\n")
        clips = evaluation_clips(audio, edition)
        out = build(models, edition, clips, authors=authors, out=folder / "out", report=report)
        return Built(edition, audio, authors, models, out)

    return make
