"""A learning rate by part of the network, its decay, and published weights to start from."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from scene_training import CLASSES, RATE, build
from torch.optim.optimizer import register_optimizer_step_pre_hook

from killing import killed_at, same_weights
from tinyscene.compression import LotteryTicket, MagnitudePruning
from tinyscene.errors import InputError
from tinyscene.features import Raw, Standardize
from tinyscene.models import AemNet
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.masks import masks_of
from tinyscene.models.preparation import prepare
from tinyscene.training import SGD, Adam, AdamW, EarlyStopping, Fit, InverseTime
from tinyscene.training.keys import key_of
from tinyscene.training.optimizers import parameter_groups

BODY = (("body", 0.1),)


def waveform_net(seed: int = 2) -> SceneClassifier:
    torch.manual_seed(seed)
    network = AemNet(classes=3, width=1 / 16, pooling=4, filters=(4, 32), embedding=16)
    return SceneClassifier(Raw(RATE), network, CLASSES, Standardize.identity(1))


def test_head_and_body_move_at_ten_to_one(small_clips, new_run):
    """One step of plain gradient descent from the same values, at equal rates and at 10 : 1."""

    def moved(rates) -> dict[str, torch.Tensor]:
        fit = Fit(epochs=1, batch_size=24, optimizer=SGD(1e-2, momentum=0.0, rates=rates))
        before = waveform_net()
        after = fit(before, small_clips.train, new_run(str(len(rates))))
        values = dict(before.network.named_parameters())
        return {name: (p - values[name]).detach() for name, p in after.network.named_parameters()}

    equal, slower = moved(()), moved(BODY)
    assert {name.split(".")[0] for name in slower} == {"body", "dense"}
    for name in equal:
        factor = 0.1 if name.startswith("body.") else 1.0
        torch.testing.assert_close(slower[name], factor * equal[name], rtol=1e-2, atol=2e-7)
    # By far more than rounding, in most tensors of either part.
    assert sum(bool(equal[name].abs().max() > 1e-5) for name in equal if name.startswith("body.")) > 40
    assert all(equal[f"dense.{name}"].abs().max() > 1e-3 for name in ("weight", "bias"))


@pytest.mark.parametrize("optimizer", [Adam(1e-2, 0.1), AdamW(1e-2, 0.1), SGD(1e-2, weight_decay=0.1)])
def test_a_rate_of_zero_leaves_a_part_as_it_is(small_clips, new_run, optimizer):
    """Bit for bit, whatever momentum and weight decay would do; batch norm's statistics move."""
    before = waveform_net()
    fit = Fit(epochs=2, batch_size=8, optimizer=replace(optimizer, rates=(("body", 0.0),)))
    after = fit(before, small_clips.train, new_run())
    values = dict(before.network.named_parameters())
    for name, parameter in after.network.named_parameters():
        assert torch.equal(parameter, values[name]) == name.startswith("body."), name


@pytest.mark.parametrize("optimizer", [Adam, AdamW, SGD])
def test_the_rates_that_torch_sees_stay_ten_to_one_under_a_schedule(small_clips, new_run, optimizer):
    seen = []

    def look(optimizer, *_) -> None:
        seen.append({len(group["params"]): group["lr"] for group in optimizer.param_groups})

    fit = Fit(epochs=2, batch_size=8, optimizer=optimizer(1e-4, rates=BODY), schedule=InverseTime(1e-2))
    classifier = waveform_net()
    hook = register_optimizer_step_pre_hook(look)
    try:
        run = new_run()
        fit(classifier, small_clips.train, run)
    finally:
        hook.remove()
    body = len(list(classifier.network.body.parameters()))
    assert len(seen) == 6
    for step, rates in enumerate(seen):
        assert rates[2] == pytest.approx(1e-4 / (1 + 1e-2 * step / 3))
        assert rates[body] == pytest.approx(0.1 * rates[2])
    assert run.history[-1]["lr"] == seen[-1][2]


def test_groups_cover_every_parameter_once():
    network = waveform_net().network
    groups = parameter_groups(network, (("body.low", 0.1), ("body", 0.5)))
    counted = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(counted) == sorted(id(parameter) for parameter in network.parameters())
    sizes = {group["factor"]: len(group["params"]) for group in groups}
    assert sizes == {0.1: 6, 0.5: 9 * 6 + 2, 1.0: 2}


def test_rates_name_the_networks_own_paths_under_fake_quantization():
    classifier = build()
    network = prepare(classifier.network, classifier.short_example())
    slow, rest = parameter_groups(network, (("dense", 0.1),))
    assert (slow["factor"], rest["factor"]) == (0.1, 1.0)
    dense = dict(network.graph.named_parameters())
    assert list(map(id, slow["params"])) == [id(dense[f"dense.{name}"]) for name in ("weight", "bias")]


@pytest.mark.parametrize("rates", [(("boddy", 0.1),), (("*", 0.1), ("body", 0.5))])
def test_rates_that_mean_nothing_are_refused(small_clips, new_run, rates):
    with pytest.raises(InputError, match=r"rates: .*accepted: a path in body, .*dense"):
        Fit(epochs=1, optimizer=Adam(rates=rates))(waveform_net(), small_clips.train, new_run())


def test_under_fake_quantization_the_error_names_layers_alone():
    classifier = build()
    network = prepare(classifier.network, classifier.short_example())
    with pytest.raises(InputError, match=r"accepted: a path in L1, L2, L3, dense, output, \* for any text"):
        parameter_groups(network, (("dens", 0.1),))


def test_both_rates_go_on_after_a_kill(small_clips, new_run):
    fit = Fit(epochs=3, batch_size=8, optimizer=Adam(1e-3, 1e-4, rates=BODY), schedule=InverseTime())
    whole = fit(waveform_net(), small_clips.train, new_run("whole"))
    with killed_at(5):
        fit(waveform_net(), small_clips.train, new_run("killed"))
    assert same_weights(whole, fit(waveform_net(), small_clips.train, new_run("killed")))


def test_inverse_time_halves_the_rate_after_one_over_its_decay():
    assert [InverseTime(0.01).factor(epoch, 7) for epoch in (0, 100, 300)] == [1.0, 0.5, 0.25]
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(InputError, match="accepted: at least 0, and finite"):
            InverseTime(wrong)


# Ending early


def test_stopping_after_an_epoch_leaves_what_the_whole_fit_had_then(small_clips, new_run):
    """The schedule is that of all epochs."""
    fit = Fit(epochs=4, batch_size=8, optimizer=Adam(1e-3), schedule=InverseTime(0.5))
    run = new_run("short")
    short = Fit(epochs=4, batch_size=8, optimizer=Adam(1e-3), schedule=InverseTime(0.5), stop_after=2)(
        build(), small_clips.train, run
    )
    assert len(run.history) == 2
    with killed_at(7):  # the first step of the third epoch
        fit(build(), small_clips.train, new_run("whole"))
    (checkpoint,) = (new_run("whole").folder / "checkpoints").glob("*.safetensors")
    # The checkpoint holds the whole classifier, of which the network is a part.
    kept = {name.removeprefix("network.network."): tensor for name, tensor in load_file(checkpoint).items()}
    assert all(torch.equal(tensor, kept[name]) for name, tensor in short.network.state_dict().items())
    with pytest.raises(InputError, match=r"stop_after=5.*accepted: 0 to 4"):
        Fit(epochs=4, stop_after=5)


def test_starting_after_an_epoch_goes_on_as_the_whole_fit(small_clips, new_run):
    """Schedule, order of clips and dropout; without momentum nothing else is remembered."""
    fit = Fit(epochs=4, batch_size=8, optimizer=SGD(1e-2, momentum=0.0), schedule=InverseTime(0.5))
    runs = [new_run(name) for name in ("whole", "first", "second")]
    whole = fit(build(), small_clips.development, runs[0])
    half = replace(fit, stop_after=3)(build(), small_clips.development, runs[1])
    rest = replace(fit, start_after=3)(half, small_clips.development, runs[2])
    assert all(torch.equal(whole.state_dict()[name], value) for name, value in rest.state_dict().items())
    rows = [[{**row, "seconds": 0} for row in run.history] for run in runs]
    assert [row["epoch"] for row in rows[2]] == [3]
    assert rows[1] + rows[2] == rows[0]


def test_a_later_part_is_called_so_and_a_resumed_one_too(small_clips, new_run, capsys, monkeypatch):
    monkeypatch.setattr("tinyscene.progress.LINE_EVERY_S", 0.0)
    late = Fit(epochs=4, batch_size=8, start_after=2)

    def said(fit):
        fit(build(), small_clips.train, new_run(quiet=False))
        return {line.partition(":")[0] for line in capsys.readouterr().err.splitlines() if "epoch" in line}

    assert said(replace(late, stop_after=2, start_after=0)) == {"training"}
    with killed_at(4):  # the first step of its second epoch
        late(build(), small_clips.train, new_run(quiet=False))
    capsys.readouterr()
    assert said(late) == {"training, resumed after epoch 3"}
    assert said(replace(late, batch_size=4)) == {"training from epoch 3 on"}


def test_starting_late_is_no_epoch_without_progress(small_clips, new_run):
    run = new_run()
    stopping = EarlyStopping(patience=2)
    Fit(epochs=6, batch_size=8, start_after=4, early_stopping=stopping)(build(), small_clips.development, run)
    assert [row["epoch"] for row in run.history] == [4, 5]


@pytest.mark.parametrize("wrong", [{"start_after": 5}, {"start_after": -1}, {"start_after": 3, "stop_after": 2}])
def test_an_impossible_start_is_refused(wrong):
    with pytest.raises(InputError, match=r"start_after=-?\d.*accepted: 0 to [42]"):
        Fit(epochs=4, **wrong)


# Published weights


def started(classifier, path, clips, run) -> SceneClassifier:
    """What training begins with."""
    return Fit(epochs=1, batch_size=8, init=path, stop_after=0)(classifier, clips, run)


def test_training_starts_from_published_weights(small_clips, new_run, tmp_path):
    published = waveform_net(seed=9)
    save_file(dict(published.network.state_dict()), tmp_path / "whole.safetensors")
    after = started(waveform_net(), tmp_path / "whole.safetensors", small_clips.train, new_run())
    for name, tensor in published.network.state_dict().items():
        assert torch.equal(after.network.state_dict()[name], tensor), name


def test_a_part_that_the_file_leaves_out_keeps_its_own(small_clips, new_run, tmp_path):
    published, mine = waveform_net(seed=9), waveform_net()
    body = {f"body.{name}": tensor for name, tensor in published.network.body.state_dict().items()}
    save_file(body, tmp_path / "body.safetensors")
    after = started(mine, tmp_path / "body.safetensors", small_clips.train, new_run()).network
    assert torch.equal(after.body.embed.weight, published.network.body.embed.weight)
    assert torch.equal(after.dense.weight, mine.network.dense.weight)
    # What this package saved will do as well.
    saved = published.save(tmp_path / "model") / "weights.safetensors"
    assert torch.equal(
        started(mine, str(saved), small_clips.train, new_run()).network.dense.weight, published.network.dense.weight
    )


def test_a_file_of_another_network_is_refused_by_name(small_clips, new_run, tmp_path):
    tensors = dict(waveform_net().network.state_dict())
    tensors["dense.weight"] = torch.zeros(527, 16)
    tensors["body.extra"] = torch.zeros(1)
    del tensors["body.embed.bias"]
    save_file(tensors, tmp_path / "other.safetensors")
    said = (
        r"other.safetensors: .*1 missing: body.embed.bias; 1 unexpected: body.extra; "
        r"1 of another shape: dense.weight \(527, 16\), here \(3, 16\).*accepted"
    )
    with pytest.raises(InputError, match=said):
        started(waveform_net(), tmp_path / "other.safetensors", small_clips.train, new_run())
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(InputError, match="text.safetensors: not a safetensors file.*accepted"):
        started(waveform_net(), tmp_path / "text.safetensors", small_clips.train, new_run())
    with pytest.raises(InputError, match="none.safetensors: can't be read.*accepted"):
        started(waveform_net(), tmp_path / "none.safetensors", small_clips.train, new_run())


def test_a_pruned_network_is_refused_before_any_training(small_clips, new_run, tmp_path):
    """Its masks were chosen by other weights; a fit without published ones goes on."""
    path = tmp_path / "whole.safetensors"
    save_file(dict(waveform_net(seed=9).network.state_dict()), path)
    pruned = MagnitudePruning(0.3).shape(waveform_net())
    for act in (Fit(init=path).shape, lambda net: started(net, path, small_clips.train, new_run())):
        with pytest.raises(
            InputError, match=r"whole.safetensors'\) on a pruned network.*accepted: init in a Fit before"
        ):
            act(pruned)
    assert Fit().shape(pruned) is pruned
    # A round of the lottery and a late start begin where init is no longer read, or not masked yet.
    rounds = LotteryTicket(0.5, fit=Fit(epochs=1, batch_size=8, init=path), rounds=2, rewind_epoch=1)
    run = new_run(initial=waveform_net())
    assert masks_of(rounds(waveform_net(), small_clips.train, run).network)


def test_the_key_of_a_result_changes_with_the_files_content(tmp_path):
    path = tmp_path / "a.safetensors"
    keys = []
    for value in (1.0, 2.0, 1.0):
        save_file({"dense.bias": torch.full((3,), value)}, path)
        keys.append(key_of(Fit(init=path)))
    assert keys[0] == keys[2] != keys[1]
    assert key_of(Fit()) not in keys
