"""Small classifiers of every network, at every precision."""

from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from soak import SOAK
from tinyscene.compression import HalfPrecision
from tinyscene.features import LogMel, Raw
from tinyscene.models import aemnet, bc_resnet_mod, create_model
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.preparation import prepare

CLASSES = ("bus", "park", "tram")
CLIP_S = 0.6
SMALL: dict[str, dict[str, Any]] = {
    "aemnet": {"width": 1 / 16, "pooling": 2, "filters": (4, 32), "embedding": 16},
    "baseline2020": {"filters": (4, 6), "dense": 12, "bands": 40},
    "baseline2021": {"filters": (4, 4, 6), "dense": 12, "bands": 40},
    "bc_resnet_mod": {"width": 1},
    "cp_mobile": {"base_channels": 8, "blocks": (1, 1, 1), "strides": ((1, 1), (1, 2), (2, 1))},
    "moments_linear": {"bands": 40},
    "pham_cnn": {"channels": (4, 4, 6, 8)},
    "se_resnet": {"channels": (8, 8), "bands": 40},
    "tandem": {"bands": 32, "width": 1},
}
# Bands of the features, where they aren't 40.
BANDS = {"bc_resnet_mod": 32, "tandem": 32}
PRECISIONS = ("float32", "float16", "int8")
# An int8 file holds what a float one does, and more: of floats, some networks with batch norm and one without; one on
# waveforms is written with its front end inside. The tandem is two of the others. What 16 bits change, one with plain
# and one with depthwise convolutions show. Under soak, all do at each precision.
FLOAT = tuple(SMALL) if SOAK else ("baseline2021", "cp_mobile", "moments_linear", "pham_cnn")
HALVED = tuple(SMALL) if SOAK else ("baseline2021", "cp_mobile")
INT8 = tuple(SMALL) if SOAK else tuple(name for name in SMALL if name != "tandem")
# Without its repetitions, which take long to capture, a network has the same operations.
STAGES = bc_resnet_mod.STAGES if SOAK else ((10, 2), (15, 1), (20, 1), (25, 1))
WIDTHS = aemnet.WIDTHS if SOAK else aemnet.WIDTHS[:4]
CASES = [(name, p) for p, names in zip(PRECISIONS, (FLOAT, HALVED, INT8), strict=True) for name in names]


@cache
def build(name: str) -> SceneClassifier:
    """Batch norm and standardization have seen noise, so that the logits spread."""
    with patch.object(bc_resnet_mod, "STAGES", STAGES), patch.object(aemnet, "WIDTHS", WIDTHS):
        network = create_model(name, classes=len(CLASSES), **SMALL[name], seed=0)
    frontend = Raw(8000) if name == "aemnet" else LogMel(8000, 256, BANDS.get(name, 40), hop_length=200)
    classifier = SceneClassifier(frontend, network, CLASSES)
    waveforms = torch.randn(8, round(CLIP_S * 8000), generator=torch.Generator().manual_seed(1))
    waveforms *= torch.logspace(-3, -0.5, 8)[:, None]
    classifier.standardize.fit([classifier.frontend(waveforms)])
    classifier.train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of dropout, whichever test asks first
        for _ in range(20):
            classifier(waveforms)
        # What batch norm leaves at one and zero would hide a scale or shift that is lost.
        for index, module in enumerate(classifier.modules()):
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(index))
                module.bias.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(index))
    return classifier.eval()


@cache
def at(name: str, precision: str) -> SceneClassifier:
    """A classifier at one of the precisions; float16 and int8 are made of the float32 one."""
    classifier = build(name)
    if precision == "float16":
        return HalfPrecision().shape(classifier)
    if precision == "float32":
        return classifier
    features = classifier.features(
        0.1 * torch.randn(8, round(CLIP_S * 8000), generator=torch.Generator().manual_seed(2))
    )
    prepared = prepare(classifier.network, features[:1])
    prepared.set_ranges([features])
    network = prepared.convert()
    return SceneClassifier(classifier.frontend, network, CLASSES, classifier.standardize).eval()
