"""A file's metadata: front end, standardization, classes and form, each as JSON."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tinyscene.deployment.forms import Form
from tinyscene.features import FRONTENDS, Standardize
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.network import shortest_frames
from tinyscene.models.provenance import Provenance

MODEL, MEAN, STD = "tinyscene", "standardize_mean", "standardize_std"


def describe(classifier: SceneClassifier, form: Form) -> dict[str, str]:
    """The metadata of a file; all values JSON."""
    described: dict[str, Any] = {
        MODEL: {
            **classifier.describe(),
            # Without training recordings: the names of thousands would outweigh the weights.
            "provenance": replace(classifier.provenance, recordings=()).to_json(),
            "shortest_frames": shortest_frames(classifier.network),
            "shortest_samples": classifier.shortest_samples,
            "front_end": form.front_end,
            "samples": None if form.any_length else form.samples,
            "step_samples": form.step_samples or None,
            "state_size": form.examples[-1].shape[1] if form.step_samples else None,
        },
        MEAN: _numbers(classifier.standardize.mean),
        STD: _numbers(classifier.standardize.std),
    }
    return {key: json.dumps(value, separators=(",", ":")) for key, value in described.items()}


def classifier_of(described: dict[str, str], network: nn.Module) -> SceneClassifier:
    """The classifier that a file was made from, with another network."""
    facts = json.loads(described[MODEL])
    standardize = Standardize(**facts["standardize"])
    standardize.mean.copy_(torch.tensor(json.loads(described[MEAN])))
    standardize.std.copy_(torch.tensor(json.loads(described[STD])))
    standardize.fitted.fill_(True)
    frontend = FRONTENDS[facts["frontend"]["name"]](**facts["frontend"]["arguments"])
    classifier = SceneClassifier(frontend, network, tuple(facts["classes"]), standardize)
    classifier.provenance = Provenance.from_json(facts["provenance"])
    return classifier.eval()


def _numbers(tensor: Tensor) -> Any:
    """Nested lists, each number with the digits that identify it in float32."""
    return np.vectorize(lambda value: float(str(np.float32(value))), otypes=[object])(tensor.cpu().numpy()).tolist()
