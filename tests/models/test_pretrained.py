"""Models that come along, and any model saved with its card."""

import csv
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
    Teacher,
    create_classifier,
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


def test_what_is_trained_on_has_the_same_classes_and_no_old_one_stays(tmp_path: Path) -> None:
    old, new = (create_classifier("plain_cnn", classes, width=4).eval() for classes in (("a", "b"), ("a", "b", "c")))
    save_pretrained(Quantize().shape(old), tmp_path / "one", CARD, trainable=old)
    with pytest.raises(InputError, match="trainable names a, b; accepted: the classes of the classifier, a, b, c"):
        save_pretrained(new, tmp_path / "one", CARD, trainable=old)
    with pytest.raises(InputError, match="was given int8 weights"):
        save_pretrained(old, tmp_path / "one", CARD, trainable=Quantize().shape(old))
    assert from_pretrained(tmp_path / "one", trainable=True).classes == ("a", "b")
    save_pretrained(new, tmp_path / "one", CARD)
    assert from_pretrained(tmp_path / "one", trainable=True).classes == ("a", "b", "c")


def test_int8_weights_alone_are_not_trainable(tmp_path: Path) -> None:
    folder = Quantize().shape(create_classifier("plain_cnn", ("a", "b"), width=4).eval()).save(tmp_path / "one")
    with pytest.raises(InputError, match=f"{folder}: int8 weights, which can't be trained on; .* in {folder}/float"):
        from_pretrained(folder, trainable=True)
    with pytest.raises(InputError, match=f"no-such: no such model; accepted: {', '.join(pretrained.names())}, or a"):
        from_pretrained("no-such")


@pytest.fixture
def along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in which one model, `tiny`, comes along, and an empty folder to work in."""
    trainable = create_classifier("plain_cnn", ("hall", "kitchen"), width=4, seed=0).eval()
    card = replace(CARD, name="tiny")
    save_pretrained(Quantize().shape(trainable), tmp_path / "package" / "tiny", card, trainable=trainable)
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "package")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_commands_take_its_name(
    along: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recording, the costs, the list."""
    soundfile.write("street.wav", 0.1 * np.random.default_rng(0).normal(size=64_000), 32_000)
    for typed in (["run", "tiny", "street.wav", "--out", "p.csv"], ["count", "tiny"], ["list", "models"]):
        monkeypatch.setattr("sys.argv", ["tinyscene", *typed])
        with pytest.raises(SystemExit, match="0"):
            main()
        assert typed[0] == "run" or "tiny" in capsys.readouterr().out
    with open("p.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["label"] == from_pretrained("tiny").predict("street.wav").label
    assert Teacher(("tiny",)).opened[0].classes == ("hall", "kitchen")
    for typed in (["run", "tini", "street.wav"], ["count", "tini"], ["evaluate", "tini", "--data", "."]):
        monkeypatch.setattr("sys.argv", ["tinyscene", *typed])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert "tiny" in capsys.readouterr().err.split("accepted:")[1]


def test_a_folder_of_that_name_comes_first(along: Path) -> None:
    assert pretrained.located("tiny") != Path("tiny")
    create_classifier("plain_cnn", ("a", "b"), width=4).save("tiny")
    assert pretrained.located("tiny") == Path("tiny")


@pytest.mark.parametrize("name", pretrained.names())
def test_what_comes_along(name: str) -> None:
    """Every shipped model is within the size of its name, names ten sounds, and can be trained on."""
    limit = 1000 * int(name.partition("-")[2].removesuffix("kb"))
    classifier, trainable = from_pretrained(name), from_pretrained(name, trainable=True)
    assert classifier.precision == "int8"
    assert sum(tensor.numel() * tensor.element_size() for tensor in classifier.network.state_dict().values()) <= limit
    assert classifier.classes == trainable.classes
    assert len(classifier.classes) == 10
    noise = np.random.default_rng(0).normal(size=64_000).astype(np.float32)
    one, other = (list(each.predict(0.1 * noise, 32_000).probabilities.values()) for each in (classifier, trainable))
    assert np.abs(np.subtract(one, other)).max() < 0.5, "one is the other, rounded and trained a little further"
    folder = pretrained.located(name)
    assert (folder.parent / "ESC-10-CREDITS.txt").is_file()
    assert len(classifier.provenance.recordings) > 100, "evaluate says which recordings were heard"
    assert pretrained.summary(name)
    assert pretrained.credits(name).startswith("CC-BY-3.0. ESC-10 (K. J. Piczak")
