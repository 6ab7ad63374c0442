"""What is captured in place of max_pool1d is max_pool1d, at any length."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tinyscene.models.capture import Capturable


@pytest.mark.parametrize("seed", range(20))
def test_a_pooling_along_time_equals_torchs(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    kernel, stride, dilation = (int(torch.randint(1, 5, (), generator=generator)) for _ in range(3))
    padding = int(torch.randint(0, kernel // 2 + 1, (), generator=generator))
    ceil_mode = bool(torch.randint(0, 2, (), generator=generator))
    given = torch.randn(3, 5, int(torch.randint(20, 40, (), generator=generator)), generator=generator)
    layers = [
        nn.MaxPool1d(kernel, stride, padding, dilation, ceil_mode=ceil_mode),
        nn.MaxPool1d(kernel),
        lambda x: functional.max_pool1d(x, (kernel,), stride),
        lambda x: functional.max_pool1d(x, kernel_size=kernel, stride=[stride], padding=(padding,)),
        lambda x: torch.max_pool1d(x, kernel),
        lambda x: torch.max_pool1d(x, [kernel], [], [padding]),
        lambda x: functional.max_pool1d(x, kernel, return_indices=True)[1],
        lambda x: functional.max_pool1d(x, kernel, stride, padding, dilation, ceil_mode, False),
    ]
    for layer in layers:
        with Capturable():
            found = layer(given)
        assert torch.equal(found, layer(given))
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    with Capturable():
        captured = torch.export.export(layers[0], (given,), dynamic_shapes=(free,)).module(check_guards=False)
    longer = torch.randn(2, 5, 57, generator=generator)
    assert torch.equal(captured(longer), layers[0](longer))
