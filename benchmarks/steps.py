"""What makes a training step of CP-Mobile faster, and what doesn't: python benchmarks/steps.py [--compile]

Batch 64 of 1 s, two threads, seed 0. Writes results/speed-steps.csv: ms of a step (forward, backward, AdamW) of each
way, in turns, and the ratio to ours. `--compile` adds torch.compile, which takes a minute and a C++ compiler.
"""

from turns import in_turns, keep  # isort: skip; tinyscene before torch, whose threads then wait as in a command

import copy
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tinyscene.allocator import keep_freed_memory
from tinyscene.models import create_classifier
from tinyscene.training.precision import autocast

THREADS, BATCH, CLASSES = 2, 64, tuple("abcdefghij")
OURS = "ours: float32, channels last, ReLU in place"


def step(
    network: nn.Module, features: torch.Tensor, around: Callable[[], Any] = nullcontext, *, fused: bool = False
) -> Callable[[], float]:
    """One step at each call; its loss."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=fused or None)
    labels = torch.arange(len(features)) % len(CLASSES)

    def call() -> float:
        optimizer.zero_grad()
        with around():
            logits = network(features)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return call


def ways(compiled: bool) -> tuple[dict[str, Callable[[], float]], dict[str, float]]:
    """The steps by name, and the seconds that preparing one took."""
    classifier = create_classifier("cp_mobile", CLASSES, seed=0)
    network = classifier.network.train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        features = classifier.features(0.1 * torch.randn(BATCH, classifier.sample_rate, generator=generator))
    last = features.contiguous(memory_format=torch.channels_last)

    def copied(**changes: Any) -> nn.Module:
        other = copy.deepcopy(network)
        for module in other.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = changes.get("inplace", True)
        return other.to(memory_format=torch.contiguous_format) if changes.get("first") else other

    found = {
        OURS: step(copied(), last),
        "channels first": step(copied(first=True), features),
        "bf16-mixed, as Run has it": step(copied(), last, partial(autocast, "bf16-mixed", network, last.device)),
        "bf16, depthwise strides too": step(copied(), last, partial(torch.autocast, "cpu", torch.bfloat16)),
        "ReLU not in place": step(copied(inplace=False), last),
        "fused AdamW": step(copied(), last, fused=True),
    }
    prepared = dict.fromkeys(found, 0.0)
    if compiled:
        found["torch.compile"], started = step(torch.compile(copied()), last), time.perf_counter()
        found["torch.compile"]()
        prepared["torch.compile"] = time.perf_counter() - started
    return found, prepared


def main() -> None:
    """Measure, print and write the table."""
    torch.set_num_threads(THREADS)
    keep_freed_memory()  # as in every run
    compiled = "--compile" in sys.argv
    steps, prepared = ways(compiled)
    found = in_turns(steps)
    rows = [
        {
            "way": name,
            "threads": str(THREADS),
            "ms_a_step": f"{1000 * taken:.1f}",
            "times_as_fast_as_ours": f"{found[OURS] / taken:.2f}",
            "prepared_in_s": f"{prepared[name]:.0f}",
        }
        for name, taken in found.items()
    ]
    keep("steps", "python benchmarks/steps.py" + " --compile" * compiled, rows)


if __name__ == "__main__":
    main()
