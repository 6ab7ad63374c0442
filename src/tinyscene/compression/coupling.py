"""The channels of a network that can only be removed together.

A residual sum ties the channels of all its terms, a depthwise convolution its outputs to its inputs, a flattening
many features to one channel, a channel shuffle as many as it has groups. These ties are found by running the
network, and proved.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tinyscene.compression.channels import FAILURES, Coupled, Member, Side, fault, groups_of, stand_in
from tinyscene.compression.probe import INPUT, OUTPUT, PARTED, Place, Probe
from tinyscene.errors import InputError

Edges = list[tuple[Tensor, Tensor]]


@torch.no_grad()
def coupled_channels(network: nn.Module, example: Tensor) -> tuple[Coupled, ...]:
    """Every set of tied channels, in the network's order, with the reason where one can't be pruned.

    Exempt are the logits, channels that become another dimension (AemNet's height of an image), those of
    the input, single ones, and all for which the proof of a cut fails.

    Args:
        network: any; layers that are not `known` keep their size.
        example: (1, channels, bands, frames), as long as the network needs.

    Raises:
        InputError: the network can't take the example.
    """
    twin = stand_in(network)
    try:
        twin(example.detach().double().cpu())
    except FAILURES as error:
        kind = type(network).__name__
        raise InputError(f"{kind} can't take an input of shape {tuple(example.shape)}: {error}") from error
    coupled = _Ties(twin, Probe(copy.deepcopy(twin).float(), example)).sets()
    free = [group for group in coupled if not group.exempt]
    if all(not fault(twin, [*zip(free, kept, strict=True)], example) for kept in _drawn(free)):
        return tuple(coupled)
    return tuple(group if group.exempt else replace(group, exempt=_proved(twin, group, example)) for group in coupled)


def _proved(twin: nn.Module, group: Coupled, example: Tensor) -> str:
    faults = (fault(twin, [(group, kept)], example) for (kept,) in _drawn([group]))
    operation = next(filter(None, faults), "")
    return f"{operation} does not keep them separate" if operation else ""


def _drawn(groups: list[Coupled]) -> Iterator[list[Tensor]]:
    """Units to keep of every set: the first, the last, and others, of a random number, as sets may have to be equal."""
    generator = torch.Generator().manual_seed(0)
    for order in (torch.arange, lambda n: torch.arange(n).flip(0), lambda n: torch.randperm(n, generator=generator)):
        numbers = [int(torch.randint(1, group.units, (), generator=generator)) for group in groups]
        yield [order(group.units) < number for group, number in zip(groups, numbers, strict=True)]


class _Ties:
    """Channels that must go together are connected nodes; the inputs of layers are further nodes."""

    def __init__(self, twin: nn.Module, probe: Probe) -> None:
        self.twin, self.probe, self.layers = twin, probe, probe.layers
        self.first = dict(zip(probe.makers, np.cumsum([0, *probe.makers.values()]).tolist(), strict=False))
        self.nodes = sum(probe.makers.values())
        self.inputs: dict[str, Tensor] = {}
        self.edges: Edges = []
        for maker in [*probe.makers][1:]:
            self._tie_groups(maker, self.first[maker] + torch.arange(probe.makers[maker]))
        for place in sorted(probe.origins):
            if place[0] in self.layers or place[0] == OUTPUT:
                self._tie_inputs(place)
        labels = self._labels()
        for place in sorted(probe.origins):
            if place[0] in PARTED:
                self._tie_parts(place, labels)
        self.labels = self._labels()

    def _new(self, number: int) -> Tensor:
        self.nodes += number
        return torch.arange(self.nodes - number, self.nodes)

    def _labels(self) -> Tensor:
        ends = torch.cat([torch.stack(edge) for edge in self.edges], 1) if self.edges else torch.zeros(2, 0)
        return _components(ends, self.nodes)

    def _tie_groups(self, path: str, nodes: Tensor) -> None:
        """All groups of a convolution keep the same of their channels."""
        rows = nodes.view(groups_of(self.layers[path]), -1)
        self.edges.append((rows[:1].expand_as(rows).flatten(), rows.flatten()))

    def _tie_inputs(self, place: Place) -> None:
        """A layer's input holds values of one unit only."""
        path = place[0]
        found = {maker: numbers.flatten(1) for maker, numbers in self.probe.origins[place].items()}
        mixes = path in self.probe.makers
        if (
            path in self.layers
            and not mixes
            and any((n.amax(1, keepdim=True) != n).logical_and(n >= 0).any() for n in found.values())
        ):
            # The channels are along another axis than the scaled ones.
            return
        if path not in self.inputs:
            self.inputs[path] = self._new(len(next(iter(found.values()))))
            if mixes:
                self._tie_groups(path, self.inputs[path])
        for maker, numbers in found.items():
            nodes = self.inputs[path][:, None].expand_as(numbers)
            self._tie(nodes, numbers, maker)

    def _tie(self, nodes: Tensor, numbers: Tensor, maker: str) -> None:
        there, start = numbers >= 0, int(nodes.min())
        met = torch.zeros(int(nodes.max()) + 1 - start, self.probe.makers[maker], dtype=torch.bool)
        met[nodes[there] - start, numbers[there].long()] = True
        node, channel = met.nonzero(as_tuple=True)
        self.edges.append((node + start, channel + self.first[maker]))

    def _tie_parts(self, place: Place, labels: Tensor) -> None:
        """Channels that end up along several axes lose the same of every part: all but the last axis tie."""
        found = self.probe.origins[place]
        size = next(iter(found.values())).shape
        seen = torch.full(size, -1)
        for maker, numbers in found.items():
            seen = torch.where((seen < 0) & (numbers >= 0), labels[numbers.clamp_min(0) + self.first[maker]], seen)
        highest = seen.masked_fill(seen < 0, -1)
        lowest = seen.masked_fill(seen < 0, len(labels))
        axes = [a for a in range(seen.ndim) if (lowest.amin(a) < highest.amax(a)).any()]
        if len(axes) > 1:
            shape = [size[axis] if axis == axes[-1] else 1 for axis in range(len(size))]
            nodes = self._new(size[axes[-1]]).view(shape).expand(size)
            for maker, numbers in found.items():
                self._tie(nodes, numbers, maker)

    def sets(self) -> list[Coupled]:
        """Makers with tied channels form a set."""
        starts = [*self.first.values(), sum(self.probe.makers.values())]
        owner = torch.repeat_interleave(torch.arange(len(starts) - 1), torch.tensor(starts).diff())
        pairs = torch.stack([owner, len(starts) + self.labels[: len(owner)]])
        component = _components(pairs, len(starts) + self.nodes)[: len(starts) - 1].tolist()
        together = defaultdict(list)
        for maker, label in zip(self.first, component, strict=True):
            together[label].append(maker)
        order = [path for path, _ in self.twin.named_modules()]
        coupled = [group for makers in together.values() if (group := self._coupled(makers)) is not None]
        return sorted(coupled, key=lambda group: order.index(group.name))

    def _coupled(self, makers: list[str]) -> Coupled | None:
        channels = torch.cat([self.first[maker] + torch.arange(self.probe.makers[maker]) for maker in makers])
        unit = torch.full((int(self.labels.max()) + 1,), -1)
        units = 0
        for label in self.labels[channels].tolist():
            if unit[label] < 0:
                unit[label], units = units, units + 1
        members = []
        for path in self.layers:
            if path in makers:
                made = self.first[path] + torch.arange(self.probe.makers[path])
                members.append(Member(path, "out", unit[self.labels[made]]))
            if path in self.inputs and (read := unit[self.labels[self.inputs[path]]]).max() >= 0:
                side: Side = "in" if path in self.probe.makers else "out"
                members.append(Member(path, side, read))
        named = [m.path for m in members if m.side == "out" and not isinstance(self.layers[m.path], _BatchNorm)]
        return Coupled(named[0], units, tuple(members), self._reason(makers, members, units)) if named else None

    def _reason(self, makers: list[str], members: list[Member], units: int) -> str:
        if any(maker in self.probe.origins[OUTPUT, 0] for maker in makers):
            return "they are the logits"
        if INPUT in makers:
            return "they are the input's"
        if shared := self._shared([m.path for m in members]):
            return f"{shared} share a tensor"
        if units == 1:
            if any(m.side == "in" and len(m.unit_of) < self.probe.makers[makers[0]] for m in members):
                return "they become another dimension of the next layer's input"
            return "there is only one unit, and one has to stay"
        if not all(_even(m.unit_of, units, self.layers[m.path]) for m in members):
            return "the units are of unequal size"
        return ""

    def _shared(self, paths: list[str]) -> str:
        """Layers that share a parameter with one of these."""
        holders = defaultdict(list)
        for path, layer in self.twin.named_modules():
            for parameter in layer.parameters(recurse=False):
                holders[id(parameter)].append(path)
        return next((" and ".join(held) for held in holders.values() if len(held) > 1 and {*held} & {*paths}), "")


def _even(unit_of: Tensor, units: int, layer: nn.Module) -> bool:
    """Whether all units hold equally many channels, and the same ones of each of a convolution's groups."""
    sizes = unit_of[unit_of >= 0].bincount(minlength=units)
    rows = unit_of.view(groups_of(layer), -1)
    return bool((sizes == sizes[0]).all() and (rows == rows[0]).all())


def _components(edges: Tensor, nodes: int) -> Tensor:
    """The number of the connected component of each node: (2, edges) -> (nodes,)"""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(edges.shape[1]), edges.numpy()), shape=(nodes, nodes))
    return torch.from_numpy(connected_components(graph, directed=False)[1]).long()
