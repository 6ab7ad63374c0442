"""Every product of weights or activations is counted or named: by hand, and against torch's FlopCounterMode."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tinyscene.accounting import COUNTERS, Ledger, count
from tinyscene.data.tau import SCENES
from tinyscene.models import NETWORKS, create_frontend, create_model
from tinyscene.models.classifier import SceneClassifier

STEPS, WIDTH, OUTPUTS = 7, 8, 6
X = torch.zeros(1, STEPS, WIDTH)


class Applied(nn.Module):
    """Applies a function to the weights, (6, 8) and (8, 8), and the input, (1, 7, 8)."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.dense = nn.Parameter(torch.randn(OUTPUTS, WIDTH))
        self.square = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x):
        return self.function(x, self.dense, self.square)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x):
        return self.heads(x, x, x)[0]


class First(nn.Module):
    """The first of what a recurrent layer returns."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


def by_torch(network: nn.Module, example: torch.Tensor) -> int:
    """Multiply-accumulates by torch's own counter: two operations each."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(example)
    return counter.get_total_flops() // 2


def missed(ledger: Ledger, counter: str) -> dict[str, int | None]:
    return {f"{one.layer}:{one.operation}": one.macs for one in ledger.uncounted if one.counter == counter}


DENSE = STEPS * WIDTH * OUTPUTS
SQUARE = STEPS * WIDTH * WIDTH
COVERED = {
    "matmul": (lambda x, w, s: x @ w.T, DENSE),
    "from the right": (lambda x, w, s: w @ x.mT, DENSE),
    "linear": (lambda x, w, s: F.linear(x, w), DENSE),
    "einsum": (lambda x, w, s: torch.einsum("btf,of->bto", x, w), DENSE),
    "addmm": (lambda x, w, s: torch.addmm(x[0], x[0], s), SQUARE),
    "baddbmm": (lambda x, w, s: torch.baddbmm(x, x, s[None]), SQUARE),
    "tensordot": (lambda x, w, s: torch.tensordot(x, w, dims=([2], [1])), DENSE),
    "chain": (lambda x, w, s: torch.linalg.multi_dot([x[0], s, s]), 2 * SQUARE),
    "operator": (lambda x, w, s: torch.ops.aten.mm(x[0], s), SQUARE),
    "inference mode": (lambda x, w, s: torch.inference_mode()(lambda: F.linear(x, w))(), DENSE),
    "unfold": (lambda x, w, s: w.reshape(2, 24) @ F.unfold(x[:, None], (3, WIDTH)), 2 * 24 * 5),
    "transposed": (lambda x, w, s: F.conv_transpose1d(x.mT, s[:, :, None].expand(-1, -1, 3), stride=2), 3 * SQUARE),
    "activations": (lambda x, w, s: x @ x.mT, STEPS * STEPS * WIDTH),
}
NOT_COVERED = {
    "in place": (lambda x, w, s: x[0].clone().addmm_(x[0], s), SQUARE),
    "vector": (lambda x, w, s: x[0] @ w[0], STEPS * WIDTH),
    "dot": (lambda x, w, s: torch.dot(x[0, 0], w[0]), WIDTH),
    "attention": (lambda x, w, s: F.scaled_dot_product_attention(x[None], x[None], x[None]), 2 * STEPS**2 * WIDTH),
    "outer": (lambda x, w, s: torch.outer(x[0, 0], w[0]), WIDTH * WIDTH),
    # (7, 1, 8) and (7, 8, 1) with (3, 8, 8): two products at each of 7 x 3 x 8 x 8 places.
    "bilinear": (lambda x, w, s: F.bilinear(x, x, s.expand(3, -1, -1)), 2 * 3 * SQUARE),
}
DISGUISED = {
    "broadcast": (lambda x, w, s: (x[:, :, None] * w).sum(-1), DENSE),
    "one row": (lambda x, w, s: (x[:, 0] * w).sum(-1), WIDTH * OUTPUTS),
    "expanded": (lambda x, w, s: (x[0, :1].expand(OUTPUTS, -1) * w).sum(-1), WIDTH * OUTPUTS),
    "repeated": (lambda x, w, s: (x[0, :1].repeat(OUTPUTS, 1) * w).sum(-1), WIDTH * OUTPUTS),
    "derived weights": (lambda x, w, s: (x[:, 0, :, None] * w.abs().T).sum(1), WIDTH * OUTPUTS),
    "divided": (lambda x, w, s: (x[:, :, None] / w).mean(-1), DENSE),
    "one output": (lambda x, w, s: (x * w[0]).sum(-1), STEPS * WIDTH),
    "similarity": (lambda x, w, s: torch.linalg.vecdot(x, w[0]), STEPS * WIDTH),
}
FREE = {
    "scale and shift": lambda x, w, s: x * w[0] + w[1],
    "scale, shift and mean": lambda x, w, s: (x * w[0] + w[1]).mean(1),
    "gate": lambda x, w, s: x * x.mean(1, keepdim=True).sigmoid(),
    "two large activations": lambda x, w, s: x * x.flip(1),
    "constants": lambda x, w, s: x + torch.arange(7.0)[:, None] * torch.arange(8.0),
    "norms": lambda x, w, s: F.rms_norm(F.layer_norm(F.normalize(x), (WIDTH,), w[0]), (WIDTH,)),
    "resampling": lambda x, w, s: F.avg_pool1d(F.interpolate(x, scale_factor=2, mode="linear"), 2),
    "moves": lambda x, w, s: torch.cat([x.roll(1, 1), F.pad(x, (1, 1), mode="circular")[..., 1:-1]], -1)[
        ..., w[:2].flatten() > 9
    ],
    "activations": lambda x, w, s: F.prelu(F.glu(F.gelu(F.softmax(x, -1))), w[0, :STEPS]),
    "windows": lambda x, w, s: F.fold(F.unfold(x[:, None], 3), (STEPS, WIDTH), 3),
    "ranks": lambda x, w, s: x.topk(2)[0].std(1).cumsum(0),
}


@pytest.mark.parametrize("name", COVERED)
def test_products_are_counted_by_hand_and_as_torch_counts(name):
    function, macs = COVERED[name]
    assert count(Applied(function), X).macs["conv_only"] == macs == by_torch(Applied(function), X)


@pytest.mark.parametrize("name", NOT_COVERED)
def test_products_that_torch_does_not_count(name):
    function, macs = NOT_COVERED[name]
    ledger = count(Applied(function), X)
    assert ledger.macs["conv_only"] == macs > 0 == by_torch(Applied(function), X)
    assert not missed(ledger, "conv_only")
    assert list(missed(ledger, "torchinfo").values()) == [macs]


@pytest.mark.parametrize("name", DISGUISED)
def test_a_dense_layer_by_elements_and_sums_is_counted(name):
    function, macs = DISGUISED[name]
    assert count(Applied(function), X).macs["conv_only"] == macs


@pytest.mark.parametrize("name", FREE)
def test_what_multiplies_no_weights_is_free(name):
    ledger = count(Applied(FREE[name]), X)
    assert sum(row.macs["conv_only"] for row in ledger.layers) == 0
    assert ledger.uncounted == ()


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w, s: torch.fft.rfft(x).abs(),
        lambda x, w, s: torch.cdist(x, w[None]),
        lambda x, w, s: torch.linalg.solve(s, x.mT),
        lambda x, w, s: torch.linalg.svd(x)[1],
    ],
    ids=["fft_rfft", "cdist", "linalg_solve", "linalg_svd"],
)
def test_what_no_formula_covers_is_named_for_every_counter(function, request):
    name = request.node.callspec.id
    ledger = count(Applied(function), X)
    assert {one.counter: (one.operation, one.macs) for one in ledger.uncounted} == dict.fromkeys(COUNTERS, (name, None))


def test_an_operator_of_ones_own_is_named():
    with torch.library._scoped_library("tinyscene_test", "FRAGMENT") as library:
        library.define("hidden(Tensor x, Tensor w) -> Tensor")
        library.impl("hidden", lambda x, w: x @ w.T, "CPU")
        ledger = count(Applied(lambda x, w, s: torch.ops.tinyscene_test.hidden(x, w)), X)
    assert missed(ledger, "conv_only") == {":hidden": None}


def test_a_scripted_function_is_counted():
    scripted = torch.jit.CompilationUnit("def dense(x, w):\n    return torch.matmul(x, w.t()).relu()\n").dense
    ledger = count(Applied(lambda x, w, s: scripted(x, w)), X)
    assert ledger.macs["conv_only"] == DENSE
    assert missed(ledger, "fvcore") == {":aten::mm": DENSE}


def test_multi_head_attention_by_hand():
    """Three projections and one back, scores, and their weighted sum."""
    hand = 4 * STEPS * WIDTH**2 + 2 * STEPS**2 * WIDTH
    fast = torch.backends.mha.get_fastpath_enabled()
    ledger = count(Attention(), X)
    assert ledger.macs["conv_only"] == hand
    for counter in ("torchinfo", "nessi", "thop"):
        assert missed(ledger, counter) == {"heads:multi_head_attention_forward": hand}
    with torch.no_grad():
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            assert by_torch(Attention(), X) == hand
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def test_twelve_layers_of_attention():
    layers, steps, width, hidden = 12, 65, 64, 128
    layer = nn.TransformerEncoderLayer(width, 4, hidden, batch_first=True)
    network = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
    dense = 2 * steps * width * hidden
    attention = 4 * steps * width**2 + 2 * steps**2 * width
    ledger = count(network, torch.zeros(1, steps, width))
    assert ledger.macs["conv_only"] == layers * (attention + dense)
    found = missed(ledger, "torchinfo")
    assert found["layers.11.self_attn:multi_head_attention_forward"] == attention
    # torchinfo counts weights and biases of a dense layer once, and not at each of 65 steps.
    assert found["layers.0.linear1:linear"] == dense // 2 - (width + 1) * hidden
    assert ledger.macs["torchinfo"] + sum(found.values()) >= ledger.macs["conv_only"]


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
@pytest.mark.parametrize(("layers", "both_ways"), [(1, False), (2, True)])
def test_recurrent_layers_by_hand(kind, layers, both_ways):
    hidden, directions = 5, 1 + both_ways
    gates = {nn.GRU: 3, nn.LSTM: 4, nn.RNN: 1}[kind]
    inputs = [WIDTH] + [directions * hidden] * (layers - 1)
    hand = sum(gates * (given + hidden) * hidden * STEPS * directions for given in inputs)
    network = First(kind(WIDTH, hidden, layers, batch_first=True, bidirectional=both_ways))
    ledger = count(network, X)
    assert ledger.macs["conv_only"] == hand
    # torchinfo counts all weights and biases once a step; thop's own GRU is not followed here.
    assert ledger.macs["torchinfo"] == hand + sum(2 * gates * hidden * STEPS * directions for _ in inputs)
    assert missed(ledger, "torchinfo") == {}
    assert list(missed(ledger, "fvcore").values()) == [hand]


@pytest.mark.parametrize("name", NETWORKS)
def test_no_network_of_the_menu_has_anything_uncounted(name):
    network = create_model(name, classes=10)
    example = SceneClassifier(create_frontend(name), network, SCENES).example(1.0)
    ledger = count(network, example)
    assert ledger.uncounted == ()
    assert ledger.macs["conv_only"] == by_torch(network, example)
