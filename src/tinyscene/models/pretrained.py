"""Trained models in the layout of a model hub: `model.json`, `weights.safetensors`, and a card, `README.md`.

`float/` beside an int8 model holds the network before rounding, for fine-tuning. Some models come with the package.
"""

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from tinyscene.errors import InputError
from tinyscene.files import write_whole
from tinyscene.models.classifier import SceneClassifier

FOLDER = Path(__file__).parents[1] / "pretrained"
MODEL, CARD, FLOAT = "model.json", "README.md", "float"


@dataclass(frozen=True)
class Card:
    """What one has to know of a trained model, in sentences.

    Args:
        name: such as "esc10-64kb".
        summary: one line.
        licence: an SPDX identifier, such as "CC-BY-3.0".
        data: what it learned from, with credits.
        figures: how well it hears, on what, and how that was measured.
        command: how it was made.
        use: what it is meant for, and what not.
    """

    name: str
    summary: str
    licence: str
    data: str
    figures: str
    command: str
    use: str

    def text(self, classifier: SceneClassifier) -> str:
        """As Markdown, with the fields that model hubs read in front."""
        front = {"license": self.licence.lower(), "library_name": "tinyscene", "tags": ["audio-classification"]}
        fields = "\n".join(f"{name}: {json.dumps(value)}" for name, value in front.items())
        about = {
            "Data": self.data,
            "Figures": self.figures,
            "How it was made": f"```\n{self.command}\n```",
            "Use": self.use,
            "Classes": ", ".join(classifier.classes),
            "Input": f"{classifier.sample_rate:,} Hz, at least {classifier.shortest_samples} samples; "
            f"{classifier.precision} weights",
        }
        sections = "\n\n".join(f"## {title}\n\n{text}" for title, text in about.items())
        return f"---\n{fields}\n---\n\n# {self.name}\n\n{self.summary}\n\n{sections}\n"


def names() -> tuple[str, ...]:
    """The models that come with the package."""
    return tuple(sorted(place.parent.name for place in FOLDER.glob(f"*/{MODEL}")))


def located(model: str | Path) -> Path:
    """The folder of a model that comes with the package, by its name; any other path as it is."""
    path = Path(model)
    return FOLDER / path.name if not path.exists() and str(model) in names() else path


def summary(name: str) -> str:
    """The first sentence of the card of a model that comes with the package."""
    lines = (FOLDER / name / CARD).read_text(encoding="utf-8").splitlines()
    return lines[lines.index(f"# {name}") + 2]


def credits(model: str | Path) -> str:
    """Licence and data, from the card of a model's folder; empty where there is none."""
    card = located(model) / CARD
    if not card.is_file():
        return ""
    text = card.read_text(encoding="utf-8")
    found = re.search(r"^license: \"([^\"\n]*)\"$.*?^## Data\n\n(.*?)\n\n^## ", text, re.M | re.S)
    return f"{found[1].upper()}. {found[2]}" if found else ""


def from_pretrained(model: str | Path, *, trainable: bool = False) -> SceneClassifier:
    """A model that comes with the package, by its name, or one from `save_pretrained` or `SceneClassifier.save`.

    Args:
        trainable: the float32 network from before rounding, for stages and `for_classes`.

    Raises:
        InputError: no such name or folder, a damaged model, or there is no float32 network.
    """
    folder = located(model)
    if not folder.is_dir():
        raise InputError(f"{model}: no such model; accepted: {', '.join(names())}, or a folder with {MODEL}")
    if trainable and (folder / FLOAT).is_dir():
        folder /= FLOAT
    classifier = SceneClassifier.load(folder)
    if trainable and classifier.precision != "float32":
        raise InputError(
            f"{folder}: {classifier.precision} weights, which can't be trained on; accepted: float32 ones, there or in "
            f"{folder / FLOAT}, as `fit` and save_pretrained(trainable=) write them"
        )
    return classifier


def save_pretrained(
    classifier: SceneClassifier, folder: str | Path, card: Card, *, trainable: SceneClassifier | None = None
) -> Path:
    """Write a classifier with its card into `folder`, and into `folder`/float the one from before rounding.

    Raises:
        InputError: an entry of the card is empty, `trainable` is rounded or has other classes, or a classifier can't be
            rebuilt (`SceneClassifier.written`).
    """
    if empty := [name for name, text in asdict(card).items() if not text.strip()]:
        raise InputError(f"Card without {', '.join(empty)}; accepted: a sentence for each")
    if trainable is not None:
        trainable.require_float("save_pretrained(trainable=)")
        if trainable.classes != classifier.classes:
            raise InputError(
                f"trainable names {', '.join(trainable.classes)}; accepted: the classes of the classifier, "
                f"{', '.join(classifier.classes)}"
            )
    folder = classifier.save(folder)
    shutil.rmtree(folder / FLOAT, ignore_errors=True)
    if trainable is not None:
        trainable.save(folder / FLOAT)
    with write_whole(folder / CARD) as partial:
        partial.write_text(card.text(classifier), encoding="utf-8")
    return folder
