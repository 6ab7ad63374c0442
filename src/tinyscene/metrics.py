"""Metrics of labels and probabilities."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

# The log loss stops growing below this probability, as in the DCASE evaluation's toolkit.
SMALLEST_PROBABILITY = 1e-15


def losses(labels: Labels, probabilities: Floats) -> Floats:
    """Negative natural logarithm of the probability of the true class, shape (clips,)."""
    true = probabilities[np.arange(len(labels)), labels]
    return -np.log(np.clip(true, SMALLEST_PROBABILITY, 1.0))


def log_loss(labels: Labels, probabilities: Floats) -> float:
    """Mean of `losses`."""
    return float(losses(labels, probabilities).mean())


def accuracy(labels: Labels, probabilities: Floats) -> float:
    """Share of clips whose most probable class is the true one."""
    return float((probabilities.argmax(1) == labels).mean())


def confusion(labels: Labels, probabilities: Floats) -> npt.NDArray[np.int64]:
    """Clips by true class (rows) and predicted class (columns)."""
    classes = probabilities.shape[1]
    flat = np.bincount(labels * classes + probabilities.argmax(1), minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def calibration_error(labels: Labels, probabilities: Floats, bins: int = 15) -> float:
    """Expected calibration error over bins of equal width (Guo et al., ICML 2017, equation 3)."""
    confidence = probabilities.max(1)
    right = (probabilities.argmax(1) == labels).astype(np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(place, right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def bootstrap_interval(
    values: Floats, groups: npt.NDArray[np.generic], *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a mean over clips, drawing whole groups: clips of one recording are not independent.

    NaN, NaN where there are fewer than two groups: the spread is unknown.
    """
    _, member = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(member, values), np.bincount(member)
    if len(sums) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), draws)
    means = (counts @ sums) / (counts @ sizes)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
