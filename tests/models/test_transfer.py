"""A classifier for other classes gives the features of the last layer that the old one gives."""

import copy

import pytest
import torch
from torch import nn

from tinyscene import InputError, SceneClassifier, create_classifier, register_network
from tinyscene.compression import FilterPruning, HalfPrecision, l1_norm
from tinyscene.models import list_models
from tinyscene.models.provenance import Provenance
from tinyscene.models.transfer import for_classes

OLD, NEW = tuple("abcdefghij"), ("kitchen", "street", "wood")


@pytest.mark.parametrize("name", list_models())
def test_every_network_of_the_menu_gives_the_new_classes(name: str, tmp_path) -> None:
    before = create_classifier(name, OLD, seed=0).eval()
    after = for_classes(before, NEW, seed=1)
    waveforms = torch.randn(2, max(before.sample_rate, before.shortest_samples))
    with torch.no_grad():
        assert after(waveforms).shape == (2, 3)
    held, kept = before.network.state_dict(), after.network.state_dict()
    assert held.keys() == kept.keys()
    same = [path for path in held if held[path].shape == kept[path].shape]
    assert all(torch.equal(held[path], kept[path]) for path in same)
    assert len(same) < len(held)
    after.save(tmp_path)


def test_a_pruned_network_keeps_its_widths_and_its_last_inputs() -> None:
    before = FilterPruning("L2", ratio=0.5, by=l1_norm).shape(create_classifier("baseline2021", OLD, seed=0)).eval()
    before.provenance = Provenance(("a",), ("b",), 1.0)
    after = for_classes(before, NEW)
    inputs: list[torch.Tensor] = []
    for one in (before, after):
        last = [module for module in one.network.modules() if isinstance(module, nn.Linear)][-1]
        last.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        with torch.no_grad():
            one(torch.randn(1, before.sample_rate, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(*inputs)
    assert after.provenance == before.provenance


def test_the_seed_decides_the_new_weights_alone() -> None:
    before = create_classifier("cp_mobile", OLD, seed=0)
    one, two, other = (for_classes(before, NEW, seed=seed).network.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[path], two[path]) for path in one)
    assert not all(torch.equal(one[path], other[path]) for path in one)
    same_size = for_classes(before, tuple("klmnopqrst"), seed=1).network.state_dict()
    assert not all(torch.equal(same_size[path], tensor) for path, tensor in before.network.state_dict().items())


def test_classes_outside_a_layer_are_refused() -> None:
    before = create_classifier("baseline2021", OLD, seed=0)

    class Scaled(type(before.network)):
        def __init__(self, classes: int = 10) -> None:
            super().__init__(classes=classes)
            self.scale = nn.Parameter(torch.ones(classes))

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.scale * super().forward(features)

    register_network("scaled_for_transfer", Scaled)
    with pytest.raises(InputError, match="the size of scale follows from the number of classes"):
        for_classes(SceneClassifier(before.frontend, Scaled(), OLD), NEW)


def test_a_fresh_last_layer_is_as_the_network_draws_it() -> None:
    after = for_classes(create_classifier("baseline2021", OLD, seed=0), NEW, seed=3)
    assert not after.network.output.bias.any(), "as Keras begins"


def test_rounded_weights_are_refused() -> None:
    with pytest.raises(InputError, match="float16"):
        for_classes(HalfPrecision().shape(create_classifier("baseline2021", OLD, seed=0)), NEW)


def test_the_old_one_stays() -> None:
    before = create_classifier("cp_mobile", OLD, seed=0)
    state = copy.deepcopy(before.state_dict())
    after = for_classes(before, NEW)
    with torch.no_grad():
        for parameter in after.parameters():
            parameter.add_(1)
    assert all(torch.equal(state[path], tensor) for path, tensor in before.state_dict().items())
