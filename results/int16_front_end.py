"""The accuracy of a front end by matrix products at 16 bits: python results/int16_front_end.py ESC10 MODEL ...

Every tensor between two operations is rounded to int16, symmetric, at one scale a tensor set by the loudest of the
training clips; constants likewise, or to int8 with one scale a row. Sums are exact, the logarithm is in float.
Levels and decisions on the test clips are compared with those of the float front end.

Rounded are: `all`; `spectra`, except energies and bands, which stay in float; `spectra, int8`, the same with constants
at int8.
"""

import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tinyscene as ts
from tinyscene import audio
from tinyscene.features.products import SpectrogramByProducts

LARGEST = 32767
ENERGIES = ("energy", "bands")
# (energies rounded too, constants at int8)
WAYS = {"all": (True, False), "spectra": (False, False), "spectra, int8": (False, True)}
_CLIPS = 80


class Int16(SpectrogramByProducts):
    """The front end, its values rounded in between. `scales` are those of values that passed while `watching`."""

    def __init__(self, frontend: nn.Module, energies: bool, int8: bool) -> None:
        super().__init__(frontend)  # type: ignore[arg-type]
        self.energies, self.watching, self.largest = energies, True, dict[str, float]()
        for name, constant in list(self.named_buffers(recurse=False)):
            if constant.is_floating_point():
                setattr(
                    self, name, _rounded_rows(constant) if int8 else _rounded(constant, float(constant.abs().max()))
                )

    def rounded(self, name: str, values: Tensor) -> Tensor:
        """The same values in int16."""
        if name in ENERGIES and not self.energies:
            return values
        if self.watching:
            self.largest[name] = max(self.largest.get(name, 0.0), float(values.abs().max()))
            return values
        return _rounded(values, self.largest[name])

    def forward(self, waveforms: Tensor) -> Tensor:
        """(batch, samples) -> (batch, 1, bands, frames)"""
        spectrum = self._spectrum(self.rounded("frames", self._framed(self.rounded("waveforms", waveforms))))
        spectrum = self.rounded("energy", spectrum if self.frontend.power == 2 else spectrum.sqrt())
        bands = [
            F.linear(spectrum[..., low - self.first : high - self.first], getattr(self, f"bands_{number}"))
            for number, (low, high) in enumerate(self.blocks)
        ]
        return self.frontend.levels(self.rounded("bands", torch.cat(bands, -1)).transpose(1, 2)).unsqueeze(1)

    def _spectrum(self, frames: Tensor) -> Tensor:
        """(batch, frames, window) -> (batch, frames, bins), energies"""
        used = self.over_rows.shape[1]
        padded = F.pad(frames, (0, used * self.columns - frames.shape[-1]))
        columns = padded.reshape(*frames.shape[:2], used, self.columns).transpose(-1, -2)
        real, imaginary = self.rounded("rows", F.linear(columns, self.over_rows)).chunk(2, -1)
        cosine, sine = self.turn_by_cosine, self.turn_by_sine
        turned = torch.cat([real * cosine - imaginary * sine, real * sine + imaginary * cosine], -1)
        turned = self.rounded("turned", turned).transpose(-1, -2)
        by_cosine, by_sine = F.linear(turned, self.cosines), F.linear(turned, self.sines)
        (real_c, imaginary_c), (real_s, imaginary_s) = by_cosine.chunk(2, -2), by_sine.chunk(2, -2)
        bins = self.rounded("bins", torch.stack([real_c + imaginary_s, imaginary_c - real_s]))
        return bins.square().sum(0).flatten(-2)[..., self.place]


def _rounded(values: Tensor, largest: float) -> Tensor:
    scale = max(largest, 1e-30) / LARGEST
    return (values / scale).round().clamp(-LARGEST, LARGEST) * scale


def _rounded_rows(constant: Tensor) -> Tensor:
    scale = constant.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
    return (constant / scale).round() * scale


@torch.inference_mode()
def main(folder: str, data: str) -> None:
    """Print one row for each way."""
    clips, classifier = ts.data.load(data, "esc10"), ts.SceneClassifier.load(folder).eval()
    frontend, samples = classifier.frontend, round(5 * classifier.sample_rate)
    training, test = (_waveforms(part, classifier.sample_rate, samples) for part in (clips.development, clips.test))
    wanted = frontend(test)
    ours = classifier.classify(classifier.standardize(wanted))
    targets = torch.tensor([classifier.classes.index(clip.scene) for clip in clips.test][: len(test)])
    decibels = 10 / torch.tensor(10.0).log() * 2 / frontend.power / frontend.log_factor
    spread = (wanted.amax() - wanted.amin()) * decibels
    print(f"{folder}: {type(frontend).__name__}, power {frontend.power}, levels over {spread:.0f} dB, {len(test)} "
          f"clips, accuracy {_share(ours.argmax(1) == targets)}")  # fmt: skip
    for way, (energies, int8) in WAYS.items():
        front_end = Int16(frontend, energies, int8).eval()
        for some in training.split(8):
            front_end(some)
        front_end.watching = False
        found = torch.cat([front_end(some) for some in test.split(8)])
        off = ((found - wanted) * decibels).abs().flatten()
        logits = classifier.classify(classifier.standardize(found))
        lost = (found <= found.amin() + 1e-6).float().mean() - (wanted <= wanted.amin() + 1e-6).float().mean()
        most = off.kthvalue(int(0.99 * len(off))).values
        same, right = _share(logits.argmax(1) == ours.argmax(1)), _share(logits.argmax(1) == targets)
        print(
            f"  {way:14} off by {off.mean():6.2f} dB in the mean, {most:6.2f} (99 %), {off.max():6.2f} at most; "
            f"{_share(lost)} of levels at zero; same decision {same}, accuracy {right}"
        )


def _share(of: Tensor) -> str:
    return f"{100 * float(of.float().mean()):.1f} %"


def _waveforms(clips: "ts.Clips", sample_rate: int, samples: int) -> Tensor:
    """(clips, samples)"""
    held = [torch.from_numpy(audio.read(clips.root / clip.path, sample_rate)) for clip in list(clips)[:_CLIPS]]
    return torch.stack([F.pad(one.flatten()[:samples], (0, max(0, samples - one.numel()))) for one in held])


if __name__ == "__main__":
    for model in sys.argv[2:]:
        main(model, sys.argv[1])
