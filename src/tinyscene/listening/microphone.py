"""The microphone, with sounddevice (PortAudio)."""

import queue
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyscene import audio
from tinyscene.errors import InputError

# The most that a slow model may lag behind; then sound is lost, and counted.
_LAG_S = 30.0
_SILENT_FOR_S = 5.0


@dataclass
class Microphone:
    """Sound as it comes in, until the caller stops.

    Attributes:
        device: PortAudio's number or part of the name; the default device where None.
        lost_blocks: of 0.05 s, lost while the model was too far behind.
        overflows: how often PortAudio itself lost sound.
    """

    device: int | str | None = None
    lost_blocks: int = field(default=0, init=False)
    overflows: int = field(default=0, init=False)

    BLOCK_S = 0.05

    def blocks(self, sample_rate: int, channel: audio.Channel) -> Iterator[audio.Waveform]:
        """One channel at `sample_rate` Hz, block by block; resampled where the device does not offer the rate.

        Raises:
            InputError: sounddevice or PortAudio is missing, or the device can't be opened or stops delivering.
        """
        try:
            import sounddevice
        except (ModuleNotFoundError, OSError) as error:
            raise InputError(
                f"listening needs sounddevice and PortAudio ({error}); run pip install 'tinyscene[listen]', and on "
                f"Linux, for example, apt install libportaudio2"
            ) from error
        try:
            facts = sounddevice.query_devices(self.device, "input")
        except (ValueError, sounddevice.PortAudioError) as error:
            listed = str(sounddevice.query_devices()).strip() or "none"
            raise InputError(
                f"microphone {'' if self.device is None else self.device}: {error}; accepted: --device with the number "
                f"or part of the name of a device with inputs:\n{listed}"
            ) from error
        there = int(facts["max_input_channels"])
        if isinstance(channel, int) and channel >= there:
            raise InputError(
                f"microphone {facts['name']}: {there} channels, the model takes number {channel} (from 0); accepted: a "
                f"device with that channel"
            )
        channels = channel + 1 if isinstance(channel, int) else min(2, there)
        settings: dict[str, Any] = {"device": self.device, "channels": channels, "samplerate": sample_rate}
        try:
            sounddevice.check_input_settings(**settings)
        except sounddevice.PortAudioError:
            settings["samplerate"] = round(facts["default_samplerate"])
        blocks = (audio.pick(block, channel) for block in self._captured(sounddevice, settings))
        return audio.resample_blocks(audio.finite(blocks, "the microphone"), settings["samplerate"], sample_rate)

    def _captured(self, sounddevice: Any, settings: dict[str, Any]) -> Iterator[audio.Waveform]:
        """(frames, channels), as delivered by the device"""
        waiting: queue.Queue[audio.Waveform] = queue.Queue(round(_LAG_S / self.BLOCK_S))

        def take(block: audio.Waveform, frames: int, time: Any, status: Any) -> None:
            self.overflows += bool(status.input_overflow)
            try:
                waiting.put_nowait(np.array(block, np.float32))  # PortAudio reuses its buffer
            except queue.Full:
                self.lost_blocks += 1

        size = round(self.BLOCK_S * settings["samplerate"])
        try:
            stream = sounddevice.InputStream(**settings, dtype="float32", blocksize=size, callback=take)
        except sounddevice.PortAudioError as error:
            raise InputError(f"microphone: can't be opened ({error}); accepted: one that is not in use") from error
        with stream:
            try:
                while True:
                    yield waiting.get(timeout=_SILENT_FOR_S)
            except queue.Empty:
                raise InputError(
                    f"microphone: no samples for {_SILENT_FOR_S:g} s; accepted: a device that stays connected"
                ) from None
