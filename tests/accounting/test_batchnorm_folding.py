"""What folding batch norm changes, with PyTorch's own fusion as the reference."""

import copy

import torch
import torchinfo
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tinyscene.accounting import CONVENTIONS, count
from tinyscene.models import CPMobile


def folded(network: nn.Module) -> nn.Module:
    """CP-Mobile with every conv and batch norm that stand side by side fused."""
    network = network.eval()
    for module in network.modules():
        if isinstance(module, nn.Sequential) and isinstance(module[0], nn.Conv2d):
            module[0] = fuse_conv_bn_eval(module[0], module[1])
            module[1] = nn.Identity()
    return network


def test_folding_takes_cp_mobile_over_the_limit_by_torchinfo():
    example = torch.zeros(1, 1, 256, 65)
    network = folded(CPMobile())
    macs = count(network, example).macs
    assert macs["torchinfo"] == torchinfo.summary(network, input_data=example, verbose=0).total_mult_adds
    assert round(macs["torchinfo"] / 1e6, 2) == 30.22
    # Without batch norm, fvcore adds only the final average over 10 x 32 x 9 values.
    assert macs["conv_only"] == macs["fvcore"] - 10 * 32 * 9 == 29_416_448


def test_int8_folded_equals_a_count_of_the_network_folded_by_pytorch():
    network, example = CPMobile(), torch.zeros(1, 1, 64, 16)
    before = CONVENTIONS["int8_folded"](count(network, example).tensors)
    fused = folded(copy.deepcopy(network))
    weights = sum(tensor.numel() for name, tensor in fused.named_parameters() if name.endswith("weight"))
    biases = sum(tensor.numel() for name, tensor in fused.named_parameters() if name.endswith("bias"))
    assert (before.parameters, before.bytes) == (weights + biases, weights + 4 * biases)
    assert CONVENTIONS["int8_folded"](count(fused, example).tensors) == before
