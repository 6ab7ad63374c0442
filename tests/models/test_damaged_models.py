"""Every field of a saved model's description, damaged one by one."""

import copy
import json
import resource

import pytest
import torch

from tinyscene.compression import FilterPruning, Quantize
from tinyscene.errors import InputError
from tinyscene.features import Gammatone, LogMel, Raw
from tinyscene.models import AemNet, Baseline2021, CPMobile
from tinyscene.models.classifier import SceneClassifier

CLASSES = ("bus", "park", "tram")
GONE = object()
DAMAGES = (GONE, None, float("nan"), float("inf"), -1, 0, 10**9, 10**30, 2.5, "x", "", [], {}, True)


def pruned():
    network = Baseline2021(filters=(4, 6, 8), dense=12, classes=3)
    return FilterPruning("L2", 0.5).shape(SceneClassifier(LogMel(8000, 256, 40, hop_length=160), network, CLASSES))


def mobile():
    network = CPMobile(classes=3, base_channels=8, blocks=(1, 1), strides=((1, 2),))
    return SceneClassifier(Gammatone(8000, 256, 32, hop_length=160, channel=0), network, CLASSES)


def raw():
    return SceneClassifier(Raw(8000), AemNet(3, width=1 / 16, pooling=1, filters=(4, 32), embedding=16), CLASSES)


KINDS = {"pruned": pruned, "mobile": mobile, "raw": raw}


def places(value, path=()):
    """Where every value of a description stands, whole parts included."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def damaged(described):
    """(where, the description with that damage)"""
    for *above, last in places(described):
        for damage in (*DAMAGES, "doubled"):
            one = copy.deepcopy(described)
            owner = one
            for step in above:
                owner = owner[step]
            if damage is GONE:
                del owner[last]
            elif damage == "doubled":
                owner[last] = [*owner[last], *owner[last]] if isinstance(owner[last], list) else [owner[last]] * 2
            else:
                owner[last] = damage
            if json.dumps(one) != json.dumps(described):
                yield (*above, last), one


def loaded(folder, described):
    (folder / "model.json").write_text(json.dumps(described))
    try:
        return SceneClassifier.load(folder)
    except InputError as error:
        return None if str(folder) in str(error) else pytest.fail(str(error))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*no bin of the transform", "ignore:Initializing zero-element")
def test_a_damaged_description_is_refused_or_loads_as_it_was(tmp_path, kind):
    classifier = KINDS[kind]().eval()
    described = json.loads((classifier.save(tmp_path) / "model.json").read_text())
    noise = 0.1 * torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    expected = classifier(noise)
    cases = 0
    for where, one in damaged(described):
        cases += 1
        if again := loaded(tmp_path, one):
            # All that may go without a trace is the check sum itself.
            assert where == ("sha256",), where
            assert torch.equal(again(noise), expected)
    assert cases > 300


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*no bin of the transform", "ignore:Initializing zero-element")
def test_without_its_check_sum_it_is_refused_by_a_sentence_or_loads_and_takes_no_memory(tmp_path, kind):
    classifier = KINDS[kind]().eval()
    described = json.loads((classifier.save(tmp_path) / "model.json").read_text())
    del described["sha256"]
    noise = 0.1 * torch.randn(1, 8000)
    expected = classifier(noise)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for where, one in list(damaged(described))[::3]:
        again = loaded(tmp_path, one)
        if where[0] in ("classes", "weights_sha256", "standardize", "sizes", "format"):
            assert again is None or torch.equal(again(noise), expected), where
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20


def test_the_classes_of_a_description_are_as_many_as_the_logits_and_each_a_name_of_its_own(tmp_path):
    described = json.loads((pruned().save(tmp_path) / "model.json").read_text())
    del described["sha256"]
    for classes in (["bus", "park"], ["bus", "park", "park"], ["bus", "park", ""], ["bus", "park", 3], [*CLASSES, "x"]):
        assert loaded(tmp_path, described | {"classes": classes}) is None, classes
    assert loaded(tmp_path, described | {"classes": ["a", "b", "c"]}).classes == ("a", "b", "c")


def test_a_damaged_description_of_an_int8_network_is_refused(tmp_path):
    described = json.loads((Quantize().shape(pruned()).save(tmp_path) / "model.json").read_text())
    del described["sha256"]
    for damage in (None, -1, "x", [1], {"keep_float": [], "example": [1, 1, 40, 10**9]}, {"keep_float": ["x"]}):
        assert loaded(tmp_path, described | {"int8": damage}) is None, damage


def test_a_network_larger_than_its_weights_is_refused_before_it_is_built(tmp_path, monkeypatch):
    described = json.loads((mobile().save(tmp_path) / "model.json").read_text())
    del described["sha256"]
    described["network"]["arguments"]["base_channels"] = 1 << 16
    built = []
    monkeypatch.setattr(CPMobile, "__init__", _noting(CPMobile.__init__, built))
    assert loaded(tmp_path, described) is None
    assert built == ["meta"]


def _noting(init, built):
    def noted(self, *given, **named):
        init(self, *given, **named)
        built.append(next(self.parameters()).device.type)

    return noted
