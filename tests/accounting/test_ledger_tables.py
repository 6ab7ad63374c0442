"""The ledger's views, its JSON, its tables, and that counting leaves no trace."""

import io
import json

import torch
from rich.console import Console
from torch import nn

from tinyscene.accounting import CONVENTIONS, count, layer_table, size_table, work_table
from tinyscene.models import Baseline2021, CPMobile


def printed(table) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=240).print(table)
    return buffer.getvalue()


def test_counting_leaves_the_network_as_it_was():
    network = CPMobile().half().train()
    network.stem.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    count(network, torch.rand(1, 1, 64, 16))
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    after = network.state_dict()
    assert list(after) == list(before)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)
        assert after[name].dtype == tensor.dtype
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_layers_stand_in_order_with_shapes_and_sum_to_the_totals():
    ledger = count(Baseline2021(), torch.zeros(1, 1, 40, 51))
    shapes = {row.layer: row.output_shape for row in ledger.layers}
    assert shapes["L1"] == (1, 16, 40, 51)
    assert shapes["pool2"] == (1, 32, 2, 1)
    assert [row.layer for row in ledger.layers][:2] == ["L1", "bn1"]
    by_hand = {"L1": 784 * 2040, "L2": 12_544 * 2040, "L3": 25_088 * 80, "dense": 6_400, "output": 1_000}
    assert {row.layer: row.macs["conv_only"] for row in ledger.layers if row.macs["conv_only"]} == by_hand
    assert ledger.macs["conv_only"] == sum(by_hand.values())
    assert [row.tensor for row in ledger.tensors if row.layer == "dense"] == ["weight", "bias"]


def test_json_is_plain_and_complete():
    ledger = count(Baseline2021(), torch.zeros(1, 1, 40, 51))
    copied = json.loads(json.dumps(ledger.to_json()))
    assert copied["macs"] == ledger.macs
    assert copied["input_shape"] == [1, 1, 40, 51]
    assert sum(row["bytes"] for row in copied["tensors"]) == 4 * 46_246
    assert len(copied["layers"]) == len(ledger.layers)


def test_tables_and_json_name_what_is_uncounted():
    network = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4))
    ledger = count(network, torch.zeros(1, 9, 8))
    line = f"2 operations, 0.00 MMACs known: linear in 0 ({9 * 48 - 54} MACs), linear in 1 ({9 * 24 - 28} MACs)"
    assert f"uncounted: {line}" in printed(work_table(ledger))
    assert f"uncounted by torchinfo: {line}" in printed(layer_table(ledger, CONVENTIONS["bn2"]))
    assert "uncounted" not in printed(layer_table(ledger, CONVENTIONS["bn2"], ("conv_only", "thop")))
    rows = json.loads(json.dumps(ledger.to_json()))["uncounted"]
    assert rows[0] == {"counter": "torchinfo", "layer": "0", "operation": "linear", "macs": 378}


def test_tables_name_convention_unit_and_counter_beside_the_numbers():
    ledger = count(Baseline2021(), torch.zeros(1, 1, 40, 51))
    by_layer = printed(layer_table(ledger, CONVENTIONS["int8_folded"]))
    assert "int8_folded" in by_layer
    assert "MACs, nessi" in by_layer
    (total,) = [line for line in by_layer.splitlines() if "sum" in line]
    assert all(number in total for number in ("45,990", "46,512", "29,234,920", "29,203,560"))
    sizes = printed(size_table(ledger))
    (row,) = [line for line in sizes.splitlines() if "bn4" in line]
    assert all(figure in row for figure in ("46,246", "184,984", "184.98", "180.65"))
    work = printed(work_table(ledger))
    assert all(figure in work for figure in ("29,234,920", "MACs", "261,120", "float32"))
