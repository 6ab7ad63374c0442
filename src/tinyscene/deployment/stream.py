"""A recording processed step by step, by a file that carries a state."""

import numpy as np

from tinyscene.deployment.formats import Runner, Values
from tinyscene.errors import InputError
from tinyscene.progress import track


class Stream:
    """From the next samples to the probabilities of the clip that ends with them; silence before the first.

    Args:
        run: of a file that takes samples and a state.
        step_samples: in each step.
        state_size: of its state.
        recordings: processed at once, each with its own state.
    """

    def __init__(self, run: Runner, step_samples: int, state_size: int, recordings: int = 1) -> None:
        self.run, self.step_samples = run, step_samples
        self.state: Values = np.zeros((recordings, state_size), np.float32)

    def __call__(self, samples: Values) -> Values:
        """(recordings, step_samples) -> (recordings, classes)"""
        if samples.shape != (len(self.state), self.step_samples):
            raise InputError(
                f"given {samples.shape} samples; accepted: {(len(self.state), self.step_samples)}, one step"
            )
        probabilities, self.state = self.run(samples, self.state)
        return probabilities

    def through(self, waveforms: Values, shown: str = "") -> Values:
        """(recordings, a whole number of steps) -> (recordings, classes), at their end; `shown` names the progress."""
        starts = range(0, waveforms.shape[1], self.step_samples)
        for start in track(starts, shown, len(starts), quiet=not shown):
            probabilities = self(waveforms[:, start : start + self.step_samples])
        return probabilities


def in_whole_steps(waveforms: Values, step_samples: int) -> Values:
    """(batch, samples) -> (batch, whole steps), silence before"""
    return np.pad(waveforms, ((0, 0), (-waveforms.shape[1] % step_samples, 0)))
