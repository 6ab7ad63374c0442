"""`tinyscene run --listen`, at a microphone that is made up."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from listeners import Ear, Said, noise

from tinyscene import audio
from tinyscene.errors import InputError
from tinyscene.listening import Microphone, decisions

RATE = 8000


class PortAudioError(Exception):
    pass


def fake_sounddevice(blocks: Iterator[Any], *, rates: tuple[int, ...] = (RATE,), inputs: int = 1) -> SimpleNamespace:
    """A device that hands over `blocks` when it is opened; Ctrl-C comes with its last one."""
    asked: dict[str, Any] = {}

    def query_devices(device: Any = None, kind: str | None = None) -> Any:
        if kind is None:
            return "0 Built-in"
        if device not in (None, 0):
            raise ValueError(f"No input device matching {device!r}")
        return {"name": "Built-in", "max_input_channels": inputs, "default_samplerate": 16_000.0}

    def check_input_settings(samplerate: int, **_: Any) -> None:
        if samplerate not in rates:
            raise PortAudioError("Invalid sample rate")

    class InputStream:
        def __init__(self, callback: Any, **settings: Any) -> None:
            asked.update(settings)
            self._callback = callback

        def __enter__(self) -> None:
            for block, overflow in blocks:
                self._callback(block, len(block), None, SimpleNamespace(input_overflow=overflow))

        def __exit__(self, *_: object) -> None:
            asked["closed"] = True

    return SimpleNamespace(
        PortAudioError=PortAudioError,
        query_devices=query_devices,
        check_input_settings=check_input_settings,
        InputStream=InputStream,
        asked=asked,
    )


def interrupted_when_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody presses Ctrl-C when all is heard."""
    import queue

    real = queue.Queue.get

    def get(self: Any, block: bool = True, timeout: float | None = None) -> Any:
        if timeout and self.empty():
            raise KeyboardInterrupt
        return real(self, block, timeout)

    monkeypatch.setattr(queue.Queue, "get", get)


def blocks_of(waveform: audio.Waveform, overflow_at: int = -1) -> Iterator[tuple[Any, bool]]:
    for number, start in enumerate(range(0, len(waveform), 400)):
        yield waveform[start : start + 400, None], number == overflow_at


def test_listening_ends_with_a_summary(
    run: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waveform = noise(4 * RATE)
    fake = fake_sounddevice(blocks_of(waveform, overflow_at=3))
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    interrupted_when_empty(monkeypatch)
    status, out, err = run("--listen", "--device", 0, "--format", "jsonl")
    assert status == 0
    rows = [json.loads(line) for line in out.splitlines()]
    expected = list(decisions(Ear(), [waveform]))
    assert [row["smoothed"] for row in rows] == [one.smoothed for one in expected]
    assert rows[-1]["probabilities"] == pytest.approx(expected[-1].probabilities, abs=1e-6)
    assert "3.5 s processed, 4 decisions: " in err
    assert "PortAudio lost sound 1 times" in err
    assert fake.asked["closed"]
    assert (fake.asked["device"], fake.asked["samplerate"], fake.asked["channels"]) == (0, RATE, 1)


def test_a_terminal_shows_one_line_that_changes(
    run: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(blocks_of(noise(2 * RATE))))
    interrupted_when_empty(monkeypatch)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    status, out, _ = run("--listen", "--out", tmp_path / "x.jsonl")
    assert status == 0
    assert out.count("\r") == 2
    assert out.count("\n") == 1
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 2


def test_a_device_without_the_rate_is_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = noise(2 * RATE)
    both = ((np.stack([block[:, 0], -block[:, 0]], 1), overflow) for block, overflow in blocks_of(waveform))
    fake = fake_sounddevice(both, rates=(16_000,), inputs=4)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    interrupted_when_empty(monkeypatch)
    heard = Microphone().blocks(RATE, 1)
    blocks: list[audio.Waveform] = []
    with pytest.raises(KeyboardInterrupt):
        blocks.extend(heard)
    assert (fake.asked["samplerate"], fake.asked["channels"]) == (16_000, 2)
    joined = np.concatenate(blocks)
    whole = audio.resample(-waveform, 16_000, RATE)
    # What the filter still holds when the listener goes away is not heard: 66 ms here.
    assert len(whole) - 600 < len(joined) <= len(whole)
    np.testing.assert_array_equal(joined, whole[: len(joined)])


def test_a_model_that_is_too_slow_loses_sound_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(blocks_of(noise(40 * RATE))))
    interrupted_when_empty(monkeypatch)
    microphone = Microphone()
    with pytest.raises(KeyboardInterrupt):
        list(microphone.blocks(RATE, "mean"))
    assert microphone.lost_blocks == 200


def test_what_the_microphone_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(InputError, match="pip install 'tinyscene\\[listen\\]'"):
        next(Microphone().blocks(RATE, "mean"))
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(iter(())))
    with pytest.raises(InputError, match="No input device matching 'USB'; accepted: --device"):
        next(Microphone("USB").blocks(RATE, "mean"))
    with pytest.raises(InputError, match="Built-in: 1 channels, the model takes number 1"):
        next(Microphone().blocks(RATE, 1))
    monkeypatch.setattr("tinyscene.listening.microphone._SILENT_FOR_S", 0.01)
    with pytest.raises(InputError, match="no samples for 0.01 s"):
        next(Microphone().blocks(RATE, "mean"))


def test_portaudio_may_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="libportaudio2"):
        next(Microphone().blocks(RATE, "mean"))
