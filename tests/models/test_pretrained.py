"""Models that come along, and any model saved with its card."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from tinyscene import (
    Card,
    InputError,
    SceneClassifier,
    create_classifier,
    for_classes,
    from_pretrained,
    save_pretrained,
)
from tinyscene.cli import main
from tinyscene.compression import Quantize
from tinyscene.models import pretrained

CARD = Card(
    name="mine",
    summary="Names the room: kitchen or hall.",
    licence="CC-BY-4.0",
    data="My own recordings.",
    figures="90 % on 20 recordings.",
    command="tinyscene fit --data $ROOMS",
    use="At home.",
)


def test_a_hub_reads_the_card_and_the_model_is_the_one_saved(tmp_path: Path) -> None:
    trainable = create_classifier("plain_cnn", ("hall", "kitchen"), width=4, seed=0).eval()
    small = Quantize().shape(trainable)
    folder = save_pretrained(small, tmp_path / "mine", CARD, trainable=trainable)
    assert {path.name for path in folder.iterdir()} == {"model.json", "weights.safetensors", "README.md", "float"}
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "license": "cc-by-4.0",
        "library_name": "tinyscene",
        "tags": ["audio-classification"],
    }
    for said in (CARD.summary, CARD.data, CARD.figures, CARD.command, CARD.use, "hall, kitchen", "int8 weights"):
        assert said in text
    waveforms = torch.randn(2, 32_000)
    with torch.no_grad():
        assert torch.equal(from_pretrained(folder)(waveforms), small(waveforms))
        assert torch.equal(from_pretrained(folder, trainable=True)(waveforms), trainable(waveforms))


def test_a_card_without_an_entry_is_refused(tmp_path: Path) -> None:
    classifier = create_classifier("plain_cnn", ("hall", "kitchen"), width=4)
    with pytest.raises(InputError, match="Card without data, use; accepted"):
        save_pretrained(classifier, tmp_path, replace(CARD, data=" ", use=""))
    assert not list(tmp_path.iterdir())


def test_int8_weights_alone_are_not_trainable(tmp_path: Path) -> None:
    folder = Quantize().shape(create_classifier("plain_cnn", ("a", "b"), width=4).eval()).save(tmp_path / "one")
    with pytest.raises(InputError, match=r"trainable=True.* was given int8 weights"):
        from_pretrained(folder, trainable=True)
    with pytest.raises(InputError, match=f"no-such: no such model; accepted: {', '.join(pretrained.names())}, or a"):
        from_pretrained("no-such")


@pytest.mark.parametrize("name", pretrained.names())
def test_what_comes_along(name: str) -> None:
    """Every shipped model is within the size of its name, names ten sounds, and can be trained on."""
    limit = 1000 * int(name.partition("-")[2].removesuffix("kb"))
    classifier, trainable = from_pretrained(name), from_pretrained(name, trainable=True)
    assert classifier.precision == "int8"
    assert sum(tensor.numel() * tensor.element_size() for tensor in classifier.network.state_dict().values()) <= limit
    assert len(classifier.classes) == 10
    noise = np.random.default_rng(0).normal(size=64_000).astype(np.float32)
    one, other = (each.predict(0.1 * noise, 32_000) for each in (classifier, trainable))
    assert one.label == other.label
    assert for_classes(trainable, ("hall", "kitchen")).classes == ("hall", "kitchen")
    folder = pretrained.located(name)
    assert (folder.parent / "ESC-10-CREDITS.txt").is_file()
    described = json.loads((folder / "model.json").read_text())
    assert described["provenance"]["recordings"], "evaluate says which recordings were heard"
    assert pretrained.summary(name)


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if not pretrained.names():
        pytest.skip("no model comes along")
    name = pretrained.names()[0]
    assert pretrained.located(name).is_absolute()
    SceneClassifier.save(create_classifier("plain_cnn", ("a", "b"), width=4), name)
    assert pretrained.located(name) == Path(name)


@pytest.mark.parametrize("name", pretrained.names())
def test_commands_take_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fresh install without data: a recording, the costs, the list."""
    monkeypatch.chdir(tmp_path)
    noise = 0.1 * np.random.default_rng(0).normal(size=64_000)
    soundfile.write("street.wav", noise, 32_000)
    for typed in (["run", name, "street.wav", "--out", "p.csv"], ["count", name], ["list", "models"]):
        monkeypatch.setattr("sys.argv", ["tinyscene", *typed])
        with pytest.raises(SystemExit, match="0"):
            main()
    assert name in capsys.readouterr().out
    with open("p.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    wanted = from_pretrained(name).predict("street.wav")
    assert row["scene"] == wanted.label
