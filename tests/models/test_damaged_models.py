"""Every field of a saved model's description, damaged one by one."""

import copy
import json

import pytest

from tinyscene.compression import FilterPruning
from tinyscene.errors import InputError
from tinyscene.features import LogMel
from tinyscene.models import Baseline2021
from tinyscene.models.classifier import SceneClassifier

CLASSES = ("bus", "park", "tram")
GONE = object()
DAMAGES = (GONE, None, float("nan"), float("inf"), -1, 0, 10**9, 10**30, 2.5, "x", "", [], {}, True)


def pruned():
    network = Baseline2021(filters=(4, 6, 8), dense=12, classes=3)
    return FilterPruning("L2", 0.5).shape(SceneClassifier(LogMel(8000, 256, 40, hop_length=160), network, CLASSES))


def places(value, path=()):
    """Where every value of a description stands, whole parts included."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def damaged(described):
    """The description with each damage."""
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
                yield one


def test_a_damaged_description_is_refused_by_a_sentence(tmp_path):
    described = json.loads((pruned().save(tmp_path) / "model.json").read_text())
    cases = list(damaged(described))
    assert len(cases) > 300
    for one in cases:
        (tmp_path / "model.json").write_text(json.dumps(one))
        with pytest.raises(InputError) as refused:
            SceneClassifier.load(tmp_path)
        assert str(tmp_path) in str(refused.value)


def test_a_class_that_is_named_twice_is_refused():
    with pytest.raises(InputError, match="accepted: at least one, each a name, and once"):
        SceneClassifier(LogMel(8000, 256, 40, hop_length=160), Baseline2021(classes=3), ("bus", "park", "park"))
