"""Training in bfloat16: what is at 16 bit, what is not, and that it learns."""

from dataclasses import replace

import pytest
import torch
from scene_training import build
from torch import nn
from torch.nn import functional as F

from killing import same_weights
from tinyscene.compression import Quantize
from tinyscene.errors import InputError
from tinyscene.models import create_classifier, list_models
from tinyscene.training import Adam, Fit, Run
from tinyscene.training.precision import autocast
from tinyscene.training.run import _say_slow

CPU = torch.device("cpu")
FIT = Fit(epochs=15, batch_size=8, optimizer=Adam(3e-3))


def test_it_learns_as_in_float32_with_weights_and_results_of_its_own(small_clips, new_run):
    runs = {precision: new_run("run", precision=precision) for precision in ("32-true", "bf16-mixed")}
    trained = {precision: FIT(build(), small_clips.development, run) for precision, run in runs.items()}
    ends = [run.history[-1]["train_loss"] for run in runs.values()]
    assert ends[1] == pytest.approx(ends[0], rel=0.3)
    assert ends[1] < 0.6 * runs["bf16-mixed"].history[0]["train_loss"]
    assert not same_weights(*trained.values())
    assert {tensor.dtype for tensor in trained["bf16-mixed"].parameters()} == {torch.float32}


def test_int8_training_stays_at_32_bit(small_clips, new_run):
    one = replace(FIT, epochs=1)
    trained = one(build(), small_clips.development, new_run())
    tuned = [
        Quantize(fit=one)(trained, small_clips.development, new_run(name, precision=name))
        for name in ("32-true", "bf16-mixed")
    ]
    assert same_weights(*tuned)


@pytest.mark.parametrize("name", list_models())
def test_every_network_of_the_menu_gives_the_same_logits_but_for_rounding_and_a_gradient_everywhere(name):
    torch.manual_seed(0)
    classifier = create_classifier(name, ("a", "b", "c"))
    network = classifier.network.train()
    times, pitches = torch.arange(classifier.sample_rate) / classifier.sample_rate, torch.rand(8, 20, 1) * 5000
    waveforms = (torch.rand(8, 20, 1) * (2 * torch.pi * pitches * times).sin()).mean(1) + 0.01 * torch.randn(len(times))
    with torch.no_grad():
        features = classifier.frontend(waveforms)
        classifier.standardize.fit(list(features.split(1)))
        features = classifier.arranged(classifier.standardize(features))
    found, learned = [], []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(1)  # of dropout
        with autocast(precision, network, CPU):
            logits = network(features)
        network.zero_grad()
        F.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])).backward()
        found.append(logits.float())
        learned.append([one.grad is not None and bool(one.grad.any()) for one in network.parameters()])
        assert all(one.grad is None or one.grad.isfinite().all() for one in network.parameters())
    assert learned[0] == learned[1]
    assert 0 < (found[0] - found[1]).norm() < 0.15 * found[0].norm()


def test_a_depthwise_convolution_with_a_stride_computes_at_32_bit():
    kinds = []
    plain, strided = (nn.Conv2d(4, 4, 3, stride, groups=4) for stride in (1, 2))
    plain.weight.data.normal_()
    x = torch.randn(1, 4, 9, 9)
    for layer in (plain, strided):
        with autocast("bf16-mixed", layer, CPU):
            found = layer(x)
        kinds.append((found.dtype, bool((found - layer(x)).abs().max() > 1e-6)))
    assert kinds == [(torch.bfloat16, True), (torch.float32, False)]


@pytest.mark.parametrize("stride", [1, 2, (1, 2)])
def test_a_convolution_called_as_a_function_takes_any_stride(stride):
    x, weight = torch.randn(1, 4, 9, 9), torch.randn(4, 1, 3, 3)
    with autocast("bf16-mixed", nn.Identity(), CPU):
        found = F.conv2d(x, weight, None, stride, 0, 1, 4)
    assert found.dtype == (torch.bfloat16 if stride == 1 else torch.float32)
    torch.testing.assert_close(found.float(), F.conv2d(x, weight, None, stride, 0, 1, 4), atol=0.1, rtol=0.05)


def test_another_precision_is_refused():
    with pytest.raises(InputError, match=r"precision='16-mixed'\); accepted: '32-true' or 'bf16-mixed'"):
        Run(precision="16-mixed")


@pytest.mark.parametrize("native", [False, True])
def test_where_bfloat16_is_slow_the_run_says_so(
    new_run, native: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    _say_slow.cache_clear()
    for precision in ("32-true", "bf16-mixed"):
        _ = new_run(precision, precision=precision, quiet=False).fabric
        told = "bf16-mixed is slower than 32-true" in capsys.readouterr().err
        assert told == (precision == "bf16-mixed" and not native)
    _ = new_run("again", precision="bf16-mixed", quiet=False).fabric
    assert not capsys.readouterr().err, "once is enough"
