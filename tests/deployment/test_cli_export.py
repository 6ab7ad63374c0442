"""`tinyscene export`, and `tinyscene count` of what it wrote."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from scene_files import CLIP_S, at

from tinyscene.accounting import CONVENTIONS
from tinyscene.deployment import Artifact, export
from tinyscene.errors import InputError
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.provenance import Provenance


def test_a_model_is_exported_and_its_file_counted(tinyscene: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    model, file = at("baseline2021", "int8").save(tmp_path / "model"), tmp_path / "scene.onnx"
    status, said = tinyscene("export", model, file, "--clip-s", CLIP_S)
    assert status == 0
    assert "output steps" in said
    assert "sweep" in said
    status, said = tinyscene("count", file, "--json", "-")
    assert status == 0
    (row,) = json.loads(said)["rows"]
    assert row["bytes"] == CONVENTIONS["bn2"](Artifact.load(file).certificate.ledger.tensors).bytes
    assert row["rules"] == "dcase2024"
    assert row["clip_s"] == CLIP_S
    status, said = tinyscene("count", file, "--rules", "dcase2021")
    assert status == 2
    assert "accepted: a file exported with --clip-s 10" in said
    assert tinyscene("export", model, file, "--clip-s", 10)[0] == 0
    status, said = tinyscene("count", file, "--rules", "dcase2021")
    assert status == 0
    assert "dcase2021: legal" in said


def test_what_it_says_to_wrong_input(tinyscene: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    model, file = at("baseline2021", "float32").save(tmp_path / "model"), tmp_path / "scene.onnx"
    assert tinyscene("export", model, tmp_path / "scene.wav")[0] == 2
    status, said = tinyscene("export", model, file, "--clip-s", CLIP_S, "--json", tmp_path / "facts.json")
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert status == 0, said
    assert facts["certificate"]["bytes_on_disk"] == file.stat().st_size
    assert facts["certificate"]["parity"]["agreement"] == 1
    for wrong in (("--half",), ("--precision", "int8")):
        status, said = tinyscene("count", file, *wrong)
        assert status == 2
        assert "accepted" in said
    status, said = tinyscene("count", tmp_path / "missing.onnx")
    assert status == 2
    assert "no such file" in said


def trained_on(clip_s: float) -> SceneClassifier:
    classifier = copy.deepcopy(at("baseline2021", "float32"))
    classifier.provenance = Provenance(clip_s=clip_s)
    return classifier


def test_a_file_for_one_length_is_for_what_the_model_was_trained_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--clip-s SECONDS"):
        export(at("baseline2021", "float32"), tmp_path / "a.onnx", front_end="inside")
    model = SceneClassifier.load(trained_on(CLIP_S).save(tmp_path / "model"))
    inside = export(model, tmp_path / "b.onnx", front_end="inside")
    assert inside.clip_samples == CLIP_S * model.sample_rate
    outside = Artifact.load(export(model, tmp_path / "d.onnx").path)
    assert (outside.clip_samples, outside.trained_clip_s) == (None, CLIP_S)


def test_costs_are_told_for_the_clip_that_the_model_is_for(
    tinyscene: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    file = tmp_path / "scene.onnx"
    for model, typed, told in (
        (trained_on(CLIP_S), (), "For a clip of 0.6 s:"),
        (at("baseline2021", "float32"), ("--clip-s", 0.01), f"For a clip of {model_least():g} s:"),
    ):
        status, said = tinyscene("export", model.save(tmp_path / "model"), file, *typed)
        assert status == 0, said
        assert told in said


def model_least() -> float:
    classifier = at("baseline2021", "float32")
    return classifier.shortest_samples / classifier.sample_rate


def test_options_of_recordings_need_recordings(tinyscene: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    file = tmp_path / "scene.onnx"
    for typed in (("--split", "all"), ("--dataset", "folder"), ("--skip-bad",), ("--pieces", "1"), ("--cache", "c")):
        status, said = tinyscene("export", tmp_path / "model", file, *typed)
        assert status == 2
        assert f"{typed[0]} without --data; accepted: with --data, the recordings" in said


def test_pieces_are_compared_on(
    tinyscene: Callable[..., tuple[int, str]], tmp_path: Path, sound: Callable[..., Path]
) -> None:
    """Two recordings a class are too few to be split, and enough to compare on."""
    for scene in ("bus", "park", "tram"):
        for number in range(2):
            sound(tmp_path / "data" / scene / f"{number}.wav", 1.3)
    model, file = at("baseline2021", "float32").save(tmp_path / "model"), tmp_path / "scene.onnx"
    typed = ("--data", tmp_path / "data", "--split", "all", "--pieces", CLIP_S, "--cache", tmp_path / "cache")
    status, said = tinyscene("export", model, file, *typed)
    assert status == 0, said
    assert Artifact.load(file).certificate.data == "folder-0.6s, 12 clips"
