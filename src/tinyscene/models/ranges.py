"""The range of least cost for an activation rounded to int8.

A clip's cost is its squared error over its own energy, at most 1, so that no clip outweighs the others: one that is
thirty times louder than all others has 900 times their squares. Within the range the error is that of rounding,
step^2 / 12; beyond it, the square of what is cut off (Banner et al., NeurIPS 2019, of one tensor).
"""

import torch
from torch import Tensor

# Of values' magnitudes, by their logarithm: the range is unknown until the last clip.
_BINS_AN_OCTAVE, _OCTAVES = 8, (-20, 24)
_BINS = _BINS_AN_OCTAVE * (_OCTAVES[1] - _OCTAVES[0])
# Values counted in a clip, evenly spaced; its extremes are exact.
_MOST_VALUES = 1 << 14
# Range ends to try: the largest value, and each a quarter of an octave below the last.
_TRIED = 2.0 ** (-torch.arange(40) / 4)


def histogram(x: Tensor, most: int = _MOST_VALUES) -> Tensor:
    """(clips, ...) -> (clips, 2 + 2 x bins): lowest and highest value, and the share of values of each magnitude

    Negative values come first. The shares of the values next to zero, which no range cuts off, are left out.
    """
    flat = x.detach().float().flatten(1)
    # `torch.aminmax` with a dimension takes sixty times as long.
    low, high = flat.amin(1), flat.amax(1)
    flat = flat[:, :: -(-flat.shape[1] // most)]
    place = (_BINS_AN_OCTAVE * (flat.abs().log2() - _OCTAVES[0])).floor()
    weights = (place >= 0).float() / flat.shape[1]
    index = place.clamp(0, _BINS - 1).long() + _BINS * (flat > 0)
    shares = flat.new_zeros(len(flat), 2 * _BINS).scatter_add_(1, index, weights)
    return torch.cat([low[:, None], high[:, None], shares], 1)


def cheapest(histograms: Tensor) -> tuple[Tensor, Tensor]:
    """(clips, 2 + 2 x bins), as of `histogram` -> lowest and highest value of the range, which holds zero"""
    low = histograms[:, 0].min().clamp_max(0)
    high = histograms[:, 1].max().clamp_min(0)
    magnitudes = 2.0 ** ((torch.arange(_BINS, device=low.device) + 0.5) / _BINS_AN_OCTAVE + _OCTAVES[0])
    values = torch.cat([-magnitudes, magnitudes]).clamp(low, high)
    shares = histograms[:, 2:]
    energies = shares @ values.square()
    nonzero = energies > 0
    if not nonzero.any():
        return low, high
    shares = shares[nonzero] / energies[nonzero, None]
    tried = _TRIED.to(low.device)

    def cost(lows: Tensor, highs: Tensor) -> Tensor:
        cut = (values - values.clamp(lows[:, None], highs[:, None])).square()
        rounding = ((highs - lows) / 255).square() / 12
        each = shares @ cut.T + rounding / energies[nonzero, None]
        return each.clamp_max(1).mean(0)

    # Both ends together, then each alone until neither moves.
    best = cost(low * tried, high * tried).argmin()
    best_low, best_high = low * tried[best], high * tried[best]
    for _ in range(4):
        before = best_low, best_high
        best_high = (high * tried)[cost(best_low.expand(len(tried)), high * tried).argmin()]
        best_low = (low * tried)[cost(low * tried, best_high.expand(len(tried))).argmin()]
        if (best_low, best_high) == before:
            break
    return best_low, best_high
