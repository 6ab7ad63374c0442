"""Changing a recipe from the shell: what is accepted, and what is named when it isn't."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyscene import InputError, load_system, override, scale_system
from tinyscene.compression import FilterPruning, LotteryTicket
from tinyscene.systems import SystemFile
from tinyscene.systems.edit import scale_epochs
from tinyscene.training import SGD, Cosine, EarlyStopping, Fit, Step


@pytest.fixture
def file() -> SystemFile:
    return load_system("singh2021")


def at(file: SystemFile, variant: str, path: str) -> Any:
    value: Any = file.variants[variant].stages
    for name in path.split("."):
        value = value[int(name)] if name.isdigit() else getattr(value, name)
    return value


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("0.epochs", "7", 7),
        ("0.optimizer.lr", "0.01", 0.01),
        ("0.optimizer.lr", "1e-4", 1e-4),
        ("0.optimizer.lr", "1", 1.0),
        ("0.optimizer.betas", "(0.8, 0.99)", (0.8, 0.99)),
        ("0.optimizer.betas", "(0, 0.99)", (0.0, 0.99)),
        ("0.optimizer.betas.1", "0.9", 0.9),
        ("0.early_stopping.patience", "3", 3),
        ("0.early_stopping.monitor", "accuracy", "accuracy"),
        ("0.early_stopping", "None", None),
        ("1.layer", "L3", "L3"),
        ("1.layer", "('L2', 'L3')", ("L2", "L3")),
        ("1.ratio", "0.75", 0.75),
        ("5.units", "48", 48),
    ],
)
def test_a_field_is_set_and_nothing_else(file: SystemFile, path: str, text: str, expected: Any) -> None:
    before = file.variants["singh_29kb"].stages
    changed = override(file, [f"singh_29kb.stages.{path}={text}"])
    found = at(changed, "singh_29kb", path)
    assert found == expected
    assert type(found) is type(expected)
    if isinstance(expected, tuple):
        assert [type(item) for item in found] == [type(item) for item in expected]
    number = int(path.split(".")[0])
    after = changed.variants["singh_29kb"].stages
    assert [i for i, (one, other) in enumerate(zip(before, after, strict=True)) if one != other] == [number]
    assert {n: v for n, v in changed.variants.items() if n != "singh_29kb"} == {
        n: v for n, v in file.variants.items() if n != "singh_29kb"
    }
    assert file.variants["singh_29kb"].stages is before


def test_all_means_every_variant_and_the_last_word_counts(file: SystemFile) -> None:
    changed = override(file, ["all.stages.0.epochs=2", "singh_53kb.stages.0.epochs=5"])
    assert {n: at(changed, n, "0.epochs") for n in changed.variants} == {
        **dict.fromkeys(file.variants, 2),
        "singh_53kb": 5,
    }


def test_all_means_those_that_have_the_stage_and_its_error_names_all_there_are(file: SystemFile) -> None:
    """Seven stages at most, the last of them in one variant alone."""
    long = [name for name, system in file.variants.items() if len(system.stages) > 4]
    assert 0 < len(long) < len(file.variants)
    changed = override(file, ["all.stages.5.units=48"])
    assert {name for name in file.variants if changed.variants[name] != file.variants[name]} == set(long)
    last = max(len(system.stages) for system in file.variants.values()) - 1
    for number in (last + 1, "first", "-1"):
        with pytest.raises(InputError, match=f"no item '{number}'; accepted: 0 to {last}"):
            override(file, [f"all.stages.{number}.epochs=2"])


def test_what_was_switched_off_can_be_switched_off_only_once(file: SystemFile) -> None:
    with pytest.raises(InputError, match="NoneType has no field 'patience'"):
        override(file, ["all.stages.0.early_stopping=None", "all.stages.0.early_stopping.patience=3"])


@pytest.mark.parametrize(
    ("assignment", "named"),
    [
        ("singh_53kb.stages.0.epoch=2", ["no field 'epoch'", "epochs", "batch_size", "optimizer", "early_stopping"]),
        ("singh_53kb.stages.0.optimizer.rate=2", ["Adam has no field 'rate'", "lr", "weight_decay", "betas"]),
        ("singh_53kb.stages.0.epochs.more=2", ["int has no field 'more'"]),
        ("singh_53kb.stages.9.epochs=2", ["no item '9'", "0 to 3"]),
        ("singh_53kb.stages.-1.epochs=2", ["no item '-1'", "0 to 3"]),
        ("singh_53kb.stages.².epochs=2", ["no item '²'", "0 to 3"]),
        ("singh_53kb.stages.first.epochs=2", ["no item 'first'", "0 to 3"]),
        ("singh_54kb.stages.0.epochs=2", ["no variant 'singh_54kb'", "all", "unpruned", "singh_53kb"]),
        ("singh_53kb.stages.0.epochs=many", ["'many' is str", "int", "now 200"]),
        ("singh_53kb.stages.0.epochs=2.5", ["'2.5' is float", "int"]),
        ("singh_53kb.stages.0.epochs=True", ["'True' is bool", "int"]),
        ("singh_53kb.stages.0.epochs=", ["'' is str", "int"]),
        ("singh_53kb.stages.0.epochs={[]: 1}", ["accepted: int"]),
        ("singh_53kb.stages.0.optimizer.lr=True", ["'True' is bool", "float"]),
        ("singh_53kb.stages.0.optimizer.lr=None", ["'None' is NoneType", "float"]),
        ("singh_53kb.stages.0.optimizer.betas=0.9", ["'0.9' is float", "tuple", "now (0.9, 0.999)"]),
        ("singh_53kb.stages.0.optimizer.betas=(0.9,)", ["accepted: tuple", "now (0.9, 0.999)"]),
        ("singh_53kb.stages.0.optimizer.betas=(0.9, 'x')", ["accepted: tuple"]),
        ("singh_53kb.stages.0.optimizer.betas.2=0.9", ["no item '2'", "0 to 1"]),
        ("singh_53kb.stages.0.optimizer=Adam", ["'Adam' is str", "Adam | AdamW | SGD"]),
        ("singh_53kb.stages.0.early_stopping.monitor=loss", ["'loss'", "log_loss", "accuracy"]),
        ("singh_53kb.stages.0.augment=(1,)", ["accepted: tuple"]),
        ("singh_53kb.stages.1.by=l1_norm", ["'l1_norm' is str", "Callable"]),
        ("singh_53kb.stages.0=None", ["Fit"]),
        ("singh_53kb.stages.0.epochs", ["VARIANT.stages.N.field=value"]),
        ("singh_53kb.stages=2", ["VARIANT.stages.N.field=value"]),
        ("singh_53kb.rules.0.clip_s=2", ["VARIANT.stages.N.field=value"]),
        ("stages.0.epochs=2", ["VARIANT.stages.N.field=value"]),
        ("", ["VARIANT.stages.N.field=value"]),
    ],
)
def test_what_is_wrong_is_named_beside_what_is_right(file: SystemFile, assignment: str, named: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        override(file, [assignment])
    message = str(caught.value)
    assert message.startswith(f"--set {assignment}")
    assert "accepted" in message
    for text in named:
        assert text in message


def test_no_change_changes_nothing(file: SystemFile) -> None:
    assert override(file, []) == file
    assert scale_system(file, 1.0) == file


def test_epochs_are_scaled_in_every_fit_and_nothing_else_is(file: SystemFile) -> None:
    scaled = scale_system(file, 0.1)
    for name, system in scaled.variants.items():
        for before, after in zip(file.variants[name].stages, system.stages, strict=True):
            if isinstance(before, Fit):
                assert after == override_epochs(before, 20)
            else:
                assert after == before


def override_epochs(fit: Fit, epochs: int) -> Fit:
    return Fit(epochs, fit.batch_size, fit.optimizer, fit.schedule, fit.loss, fit.augment, fit.early_stopping)


def test_an_epoch_at_least_remains() -> None:
    fit = Fit(epochs=200, optimizer=SGD(), early_stopping=EarlyStopping(patience=9))
    assert scale_epochs(fit, 1e-9).epochs == 1
    assert scale_epochs((fit, (fit, FilterPruning("L1", 0.5))), 0.5)[1][0].epochs == 100


def test_what_counts_epochs_keeps_its_share_of_a_scaled_fit() -> None:
    warmed = Fit(epochs=80, schedule=Cosine(warmup_epochs=3, final=0.01))
    assert scale_epochs(warmed, 0.5) == Fit(epochs=40, schedule=Cosine(warmup_epochs=1.5, final=0.01))
    shortest = scale_epochs(warmed, 1e-9)
    assert [shortest.schedule.factor(part, 1) for part in (0, 3 / 80, 1)] == pytest.approx([0, 1, 0.01])
    assert scale_epochs(Fit(epochs=90, schedule=Step(30)), 0.1).schedule == Step(3)
    assert scale_epochs(Fit(epochs=7, stop_after=5), 4) == Fit(epochs=28, stop_after=20)
    assert scale_epochs(Fit(epochs=7, start_after=5), 4) == Fit(epochs=28, start_after=20)
    assert scale_epochs(Fit(epochs=7, stop_after=3), 0.01).stop_after == 1
    assert scale_epochs(Fit(epochs=7, stop_after=0), 0.1).stop_after == 0
    assert scale_epochs(Fit(epochs=7, start_after=2, stop_after=3), 0.2) == Fit(epochs=1, start_after=1, stop_after=1)
    ticket = LotteryTicket(0.5, fit=Fit(epochs=80), rewind_epoch=20)
    assert scale_epochs(ticket, 0.1) == LotteryTicket(0.5, fit=Fit(epochs=8), rewind_epoch=2)
    for name in ("stop_after", "start_after"):
        assert getattr(scale_epochs(Fit(epochs=7, **{name: 5}), 0.1), name) == 1


@given(factor=st.floats(1e-4, 0.1) | st.floats(0.1, 20), cuts=st.lists(st.integers(1, 199), max_size=4, unique=True))
def test_scaled_parts_of_a_fit_train_every_epoch_once(factor: float, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), 200]
    parts = tuple(Fit(epochs=200, start_after=a, stop_after=b) for a, b in pairwise(places))
    scaled = scale_epochs((*parts[:-1], Fit(epochs=200, start_after=places[-2])), factor)
    trained = [epoch for part in scaled for epoch in range(part.start_after, part.stop_after or part.epochs)]
    assert trained == list(range(max(1, round(200 * factor))))
    assert scaled[0].stop_after != 0


@pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf")])
def test_a_factor_that_is_none_is_refused(file: SystemFile, factor: float) -> None:
    with pytest.raises(InputError, match=f"--epochs-scale {factor}.*accepted"):
        scale_system(file, factor)


def test_systems_are_found_by_name_or_path(tmp_path: Path, system_file: Path) -> None:
    file = load_system(system_file)
    assert (file.name, list(file.variants)) == ("pocket2024", ["large", "small"])
    assert file.about.startswith("Two variants of a small network")
    assert list(file.only("small").variants) == ["small"]
    with pytest.raises(InputError, match=r"pocket2024 has no variant 'tiny'; accepted: large, small"):
        file.only("large", "tiny")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("x = 1\n", "holds no System"),
        ("def build(:\n", "SyntaxError"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError"),
        ("1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_a_file_that_is_no_system_is_refused(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"mine\.py: .*{named}.*accepted"):
        load_system(path)


@pytest.mark.parametrize("name", ["singh2020", "gone.py", ""])
def test_an_unknown_system_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="accepted: .*singh2021, or the path"):
        load_system(name)


def test_a_system_may_bring_its_own_stage(tmp_path: Path, system_file: Path) -> None:
    """Annotations as text, as `from __future__ import annotations` leaves them, need the module by its name."""
    text = system_file.read_text().replace(
        "from tinyscene.accounting",
        "from __future__ import annotations\n\nfrom dataclasses import dataclass\n\nfrom tinyscene import Stage\n"
        "from tinyscene.accounting",
        1,
    )
    text += """

@dataclass(frozen=True)
class Nothing(Stage):
    times: int = 1

    def apply(self, classifier, clips, run):
        return classifier


idle = System(dcase2021, build, (Nothing(),), Reported(1, bn4, "1", bn4))
"""
    path = tmp_path / "own.py"
    path.write_text(text)
    changed = override(load_system(path), ["idle.stages.0.times=3"])
    assert changed.variants["idle"].stages[0].times == 3  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="'many' is str; accepted: int"):
        override(changed, ["idle.stages.0.times=many"])
