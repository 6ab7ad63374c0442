"""Recordings heard in chunks: the same logits as in one piece, whatever the size of the chunks."""

from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_networks import SIZES, spread

from soak import SOAK
from tinyscene.compression import HalfPrecision
from tinyscene.features import Gammatone, LogMel, Raw, Standardize
from tinyscene.models import create_model
from tinyscene.models import streaming as s
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.preparation import prepare

CLASSES = tuple("abcdefghij")
RATE = 8000
STREAMING = ("aemnet", "baseline2020", "baseline2021", "cp_mobile", "pham_cnn")
FRONTENDS = {
    "raw": lambda: Raw(RATE),
    "centred": lambda: LogMel(RATE, 256, 40, hop_length=200),
    "not centred, last frame dropped": lambda: LogMel(
        RATE, 256, 40, hop_length=160, center=False, drop_last_frame=True
    ),
    # Fewer frames than hops: a recording's last ones are cut off.
    "cut": lambda: Gammatone(RATE, 512, 40, hop_length=128, frames_per_s=40.0),
}


@cache
def build(name: str, frontend: str) -> SceneClassifier:
    network = create_model(name, **{**SIZES[name], "classes": len(CLASSES)}, seed=0)
    ears = FRONTENDS[frontend]()
    classifier = SceneClassifier(ears, spread(network), CLASSES, Standardize(ears.bands)).eval()
    classifier.standardize.fit([ears(sound(3 * RATE))])
    return classifier


def sound(samples: int, seed: int = 0) -> torch.Tensor:
    """Noise that swells, with a click near its end: (1, samples)"""
    generator = torch.Generator().manual_seed(seed)
    waveform = 0.1 * torch.randn(1, samples, generator=generator) * torch.linspace(0.1, 1, samples)
    waveform[:, -samples // 7] = 1.0
    return waveform


def whole(classifier: SceneClassifier, waveforms: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return classifier(waveforms)


PAIRS = [("aemnet", "raw"), *((name, ears) for name in STREAMING[1:] for ears in list(FRONTENDS)[1:])]


@pytest.mark.parametrize(("name", "ears"), PAIRS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(samples=st.integers(2000, 40_000), most=st.integers(1, 400), seed=st.integers(0, 99))
def test_chunks_of_any_size_give_what_one_piece_gives(name: str, ears: str, samples: int, most: int, seed: int) -> None:
    classifier, waveforms = build(name, ears), sound(samples, seed)
    scale = 100 if ears == "raw" else 1
    wanted = whole(classifier, waveforms)
    assert (s.stream(classifier, waveforms, scale * most) - wanted).abs().max() <= 1e-5 * max(1, wanted.abs().max())


@settings(max_examples=200, deadline=None)
@given(
    frames=st.integers(1, 5000),
    stride=st.integers(1, 50),
    contexts=st.integers(1, 9),
    most=st.integers(1, 3000),
)
def test_every_step_is_kept_once_and_hears_its_context(frames: int, stride: int, contexts: int, most: int) -> None:
    context = contexts * stride
    kept = []
    for chunk in s.chunks(frames, stride, context, most):
        assert 0 <= chunk.first < chunk.last <= frames
        assert chunk.last - chunk.first <= max(most, stride + 2 * context)
        assert chunk.first % stride == 0
        steps = range(chunk.first // stride, -(-chunk.last // stride))[chunk.skip :][: chunk.take]
        for step in steps:
            assert chunk.first == 0 or step * stride - chunk.first >= context
            assert chunk.last == frames or chunk.last - (step + 1) * stride >= context
        kept += list(steps)
    assert kept == list(range(-(-frames // stride)))


@pytest.mark.parametrize(("name", "ears"), [("aemnet", "raw"), ("pham_cnn", "cut"), ("baseline2021", "centred")])
def test_no_chunk_is_larger_than_asked_for(name: str, ears: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory does not grow with the recording."""
    classifier = build(name, ears)
    locality = classifier.network.locality
    most = 4 * (locality.reach + locality.stride + classifier.network.shortest_frames)
    heard: list[int] = []
    local = type(classifier.network).local
    monkeypatch.setattr(type(classifier.network), "local", lambda self, x: heard.append(x.shape[-1]) or local(self, x))
    pieces = []
    for times in (12, 24):
        heard.clear()
        s.stream(classifier, sound(round(times * most * classifier.frontend.hop_length)), most)
        assert max(heard) <= most
        pieces.append(len(heard))
    assert pieces[1] > 1.7 * pieces[0] > 10


def test_reach_is_what_a_step_hears_at_most() -> None:
    """By gradients: no step of a map depends on a frame beyond `reach`, and some depend on frames close to it."""
    for name, ears in (("aemnet", "raw"), ("baseline2021", "centred"), ("cp_mobile", "centred"), ("pham_cnn", "cut")):
        network = build(name, ears).network
        stride, reach = network.locality.stride, network.locality.reach
        frames = 2 * (reach // stride + 3) * stride
        features = torch.randn(1, 1, 1 if ears == "raw" else 40, frames, requires_grad=True)
        mapped = network.local(features)
        step = mapped.shape[-1] // 2
        (gradient,) = torch.autograd.grad(mapped[..., step].sum(), features)
        (heard,) = gradient.abs().sum((0, 1, 2)).nonzero(as_tuple=True)
        assert step * stride - reach <= heard.min()
        assert heard.max() <= step * stride + reach
        assert heard.max() - heard.min() >= 0.7 * reach


def test_half_precision_and_int8_stream_too() -> None:
    for name, ears in (*[("aemnet", "raw")] * SOAK, ("baseline2021", "centred"), ("pham_cnn", "cut")):
        classifier, waveforms = build(name, ears), sound(12_000)
        half = HalfPrecision().shape(classifier)
        torch.testing.assert_close(s.stream(half, waveforms, 300), whole(half, waveforms), rtol=1e-5, atol=1e-5)
        features = classifier.features(waveforms)
        prepared = prepare(classifier.network, features)
        prepared.set_ranges([features])
        int8 = SceneClassifier(classifier.frontend, prepared.convert(), CLASSES, classifier.standardize).eval()
        wanted = whole(int8, waveforms)
        # A mean over other stretches rounds elsewhere: a value may fall to the neighbouring step.
        allowed = 1.001 * int8.network.output_step if int8.network.locality.pooling == "mean" else 0.0
        assert (s.stream(int8, waveforms, 300) - wanted).abs().max() <= allowed


WHOLE = ("bc_resnet_mod", "moments_linear", "se_resnet", "tandem")


def test_what_hears_the_whole_clip_says_so() -> None:
    for name in WHOLE:
        network = create_model(name, **{} if name == "bc_resnet_mod" else {"bands": 64}, seed=0)
        assert not SceneClassifier(LogMel(RATE, 512, 64, hop_length=200), network, CLASSES).streams
    centred = LogMel(RATE, 256, 40, hop_length=200, subtract_mean=True)
    assert not SceneClassifier(centred, build("cp_mobile", "centred").network, CLASSES).streams
    assert all(build(name, ears).streams for name, ears in PAIRS)


def test_predict_streams_what_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = build("aemnet", "raw")
    waveform = sound(31 * RATE)
    pieces: list[int] = []
    original = s.chunks

    def counted(*arguments: int):
        found = list(original(*arguments))
        pieces.append(len(found))
        return found

    monkeypatch.setattr(s, "chunks", counted)
    prediction = classifier.predict(waveform[0].numpy(), RATE)
    assert pieces == [2]
    wanted = whole(classifier, waveform).softmax(-1)[0].tolist()
    assert [prediction.probabilities[scene] for scene in CLASSES] == pytest.approx(wanted, abs=1e-5)
    classifier.predict(waveform[0, : 29 * RATE].numpy(), RATE)
    assert pieces == [2]
