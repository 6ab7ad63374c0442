"""Saving, loading and asking a classifier."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from tinyscene.compression import FilterPruning, HalfPrecision, ReplaceDense
from tinyscene.data import Clips
from tinyscene.errors import InputError
from tinyscene.features import LogMel, Standardize
from tinyscene.models import Baseline2021, CPMobile
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.provenance import Provenance
from tinyscene.models.saved import digest
from tinyscene.training import Run

CLASSES = ("bus", "park", "tram")
RATE = 8000


def plain():
    torch.manual_seed(0)
    return filled(Baseline2021(filters=(4, 6, 8), dense=12, classes=3))


def mobile():
    torch.manual_seed(0)
    return filled(CPMobile(classes=3, base_channels=16, blocks=(2, 1), strides=((1, 2),)))


def filled(network):
    """With values in every tensor that a fresh network would not have."""
    for name, tensor in network.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 1.5)
    classifier = SceneClassifier(LogMel(RATE, 256, 40, hop_s=0.02, window="hamming"), network, CLASSES)
    classifier.standardize.fit([torch.randn(4, 1, 40, 9) * 3 - 7])
    return classifier.eval()


def dense_replaced(classifier):
    return ReplaceDense(5)(classifier, Clips("none", Path("/"), CLASSES, ()), Run())


KINDS = {
    "plain": plain,
    "mobile": mobile,
    "pruned": lambda: FilterPruning(("L1", "L2", "L3"), 0.5).shape(plain()),
    "mobile, pruned in the stream, inside and depthwise": lambda: FilterPruning(
        ("stages.0.project.0", "stages.0.expand.0", "stages.2.depthwise.0", "stages.2.project.0"), 0.25
    ).shape(mobile()),
    "dense replaced": lambda: dense_replaced(plain()).eval(),
    "half": lambda: HalfPrecision().shape(plain()),
    "pruned, dense replaced, half": lambda: HalfPrecision().shape(
        dense_replaced(FilterPruning("L2", 0.5).shape(plain())).eval()
    ),
    "mobile, pruned, half": lambda: HalfPrecision().shape(FilterPruning("stem.1.0", 0.5).shape(mobile())),
}


@pytest.fixture
def saved(tmp_path):
    return plain().save(tmp_path / "model")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_loaded_computes_what_was_saved_bit_for_bit(kind, tmp_path):
    classifier = KINDS[kind]()
    loaded = SceneClassifier.load(classifier.save(tmp_path / "model"))
    waveforms = 0.1 * torch.randn(2, RATE)
    with torch.inference_mode():
        assert torch.equal(loaded(waveforms), classifier.eval()(waveforms))
    mine, theirs = classifier.state_dict(), loaded.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(mine[name].dtype == theirs[name].dtype and torch.equal(mine[name], theirs[name]) for name in mine)
    assert not loaded.training
    assert loaded.classes == CLASSES
    again = loaded.save(tmp_path / "again")
    for name in ("weights.safetensors", "model.json"):
        assert (again / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


@pytest.mark.parametrize("kind", ["pruned", "mobile, pruned in the stream, inside and depthwise", "dense replaced"])
def test_a_loaded_small_network_trains_and_is_pruned_further(kind, tmp_path):
    loaded = SceneClassifier.load(KINDS[kind]().save(tmp_path / "model"))
    path = "stem.0.0" if kind.startswith("mobile") else "L2"
    further = FilterPruning(path, 0.5).shape(loaded).train()
    before = further.network.get_submodule(path).weight.detach().clone()
    optimizer = torch.optim.SGD(further.network.parameters(), lr=0.1)
    torch.nn.functional.cross_entropy(further(torch.randn(3, RATE)), torch.tensor([0, 1, 2])).backward()
    optimizer.step()
    assert len(before) < len(loaded.network.get_submodule(path).weight)
    assert not torch.equal(before, further.network.get_submodule(path).weight)


def test_devices_and_front_end_come_back(tmp_path):
    classifier = plain()
    classifier.provenance = Provenance(("0123456789",), ("a", "s1"), 1.5)
    loaded = SceneClassifier.load(classifier.save(tmp_path))
    assert loaded.provenance == classifier.provenance
    assert loaded.frontend.arguments == classifier.frontend.arguments
    assert loaded.standardize.fitted


def test_nothing_is_pickled(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["model.json", "weights.safetensors"]
    weights = (saved / "weights.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert header["network.L1.weight"] == {
        "dtype": "F32",
        "shape": [4, 1, 7, 7],
        "data_offsets": header["network.L1.weight"]["data_offsets"],
    }
    assert json.loads((saved / "model.json").read_text())["classes"] == list(CLASSES)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(InputError, match=f"no {name}"):
        SceneClassifier.load(saved)
    with pytest.raises(InputError, match=r"no model\.json"):
        SceneClassifier.load(saved / "nowhere")


def test_weights_of_another_model_are_refused(saved, tmp_path):
    other = plain()
    torch.nn.init.ones_(other.network.output.bias)
    other.save(tmp_path / "other")
    (tmp_path / "other" / "weights.safetensors").replace(saved / "weights.safetensors")
    with pytest.raises(InputError, match=r"was not written with model\.json"):
        SceneClassifier.load(saved)


def test_cut_weights_are_refused(saved):
    weights = saved / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(InputError, match="was not written with"):
        SceneClassifier.load(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '"model"', "\xff\xfe", '{"format": 1}'])
def test_what_is_no_description_is_refused(saved, text):
    (saved / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"model\.json: not a tinyscene model"):
        SceneClassifier.load(saved)


def rewrite(folder, **change):
    """As another version would have written it."""
    described = json.loads((folder / "model.json").read_text()) | change
    del described["sha256"]
    (folder / "model.json").write_text(json.dumps(described | {"sha256": digest(described)}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": 1}, r"of format 1; accepted: format 2"),
        ({"network": {"name": "resnet", "arguments": {}}}, "resnet.*accepted: .*baseline2021"),
        ({"network": {"name": "baseline2021", "arguments": {"depth": 3}}}, "can't be built.*depth"),
        ({"frontend": {"name": "logmel", "arguments": {"sample_rate": RATE}}}, "can't be built.*n_fft"),
        ({"sizes": {"L9": {"out_channels": 3}}}, "L9"),
        ({"sizes": {"L1": {"out_channels": 3, "in_channels": 1, "groups": 1}}}, "size mismatch for network.L1.weight"),
        ({"standardize": {"bands": 41, "channels": 1}}, r"standardize of \(1, 41\) .*; accepted: \(1, 40\)"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(saved, change, named):
    rewrite(saved, **change)
    with pytest.raises(InputError, match=named):
        SceneClassifier.load(saved)


def test_tensors_that_are_missing_are_refused_even_with_the_right_hash(saved):
    tensors = load_file(saved / "weights.safetensors")
    del tensors["network.L2.weight"]
    save_file(tensors, saved / "weights.safetensors")
    rewrite(saved, weights_sha256=hashlib.sha256((saved / "weights.safetensors").read_bytes()).hexdigest())
    with pytest.raises(InputError, match=r"Missing key.*network\.L2\.weight"):
        SceneClassifier.load(saved)


def test_a_network_of_ones_own_says_that_it_cannot_be_saved(tmp_path):
    class Own(torch.nn.Linear):
        pass

    with pytest.raises(InputError, match=r"Own is on no menu.*baseline2021"):
        SceneClassifier(LogMel(RATE, 256, 40, hop_length=80), Own(2, 2), ("a", "b")).save(tmp_path)


def test_predict_is_the_same_for_file_array_and_forward(tmp_path):
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)
    soundfile.write(tmp_path / "street.wav", waveform, RATE, subtype="FLOAT")
    classifier = plain().train()
    by_file = classifier.predict(tmp_path / "street.wav")
    assert by_file == classifier.predict(str(tmp_path / "street.wav")) == classifier.predict(waveform, RATE)
    with torch.inference_mode():
        logits = classifier.eval()(torch.from_numpy(waveform)[None])[0].double().numpy()
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(list(by_file.probabilities.values()), expected, rtol=1e-5)
    assert tuple(by_file.probabilities) == CLASSES
    assert by_file.label == CLASSES[int(expected.argmax())]


@pytest.mark.filterwarnings("error")
def test_predict_takes_any_samples_and_leaves_them_as_they_are():
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)
    classifier, kept = plain(), waveform.copy()
    expected = classifier.predict(waveform, RATE)
    for given in (np.frombuffer(waveform.tobytes(), np.float32), waveform[::-1].copy()[::-1], waveform.tolist()):
        assert classifier.predict(given, RATE) == expected
    assert np.array_equal(waveform, kept)


def test_predict_resamples(tmp_path):
    seconds = np.arange(2 * 44_100) / 44_100
    tone = (0.3 * np.sin(2 * np.pi * 500 * seconds) + 0.1 * np.sin(2 * np.pi * 1800 * seconds)).astype(np.float32)
    same = tone_at = (0.3 * np.sin(2 * np.pi * 500 * np.arange(2 * RATE) / RATE)).astype(np.float32)
    tone_at = same + (0.1 * np.sin(2 * np.pi * 1800 * np.arange(2 * RATE) / RATE)).astype(np.float32)
    soundfile.write(tmp_path / "tone.wav", np.stack([tone, tone], 1), 44_100, subtype="FLOAT")
    # The floor hides what resampling leaves in silent bands.
    torch.manual_seed(0)
    frontend = LogMel(RATE, 256, 40, hop_s=0.02, floor=1.0)
    classifier = SceneClassifier(frontend, Baseline2021(filters=(4, 6, 8), dense=12, classes=3), CLASSES)
    expected = list(classifier.predict(tone_at, RATE).probabilities.values())
    for found in (classifier.predict(tmp_path / "tone.wav"), classifier.predict(tone, 44_100)):
        np.testing.assert_allclose(list(found.probabilities.values()), expected, atol=2e-3)


def test_shortest_samples_are_just_enough():
    classifier = SceneClassifier(LogMel(RATE, 1024, 40, hop_length=500), Baseline2021(classes=3), CLASSES).eval()
    # Five frames of 500 samples' hop, the first centred at 0.
    assert classifier.shortest_samples == 4 * 500
    noise = np.random.default_rng(0).uniform(-1, 1, 2000).astype(np.float32)
    assert set(classifier.predict(noise, RATE).probabilities) == set(CLASSES)
    with pytest.raises(InputError, match=r"the samples: 0\.25 s; accepted: at least 0\.25 s"):
        classifier.predict(noise[:-1], RATE)
    uncentred = LogMel(RATE, 1024, 40, hop_length=500, center=False, drop_last_frame=True)
    assert SceneClassifier(uncentred, Baseline2021(classes=3), CLASSES).shortest_samples == 1024 + 5 * 500


@pytest.mark.parametrize(
    ("waveform", "named"),
    [
        (np.zeros(RATE, np.float32), "silent"),
        (np.full(RATE, np.nan, np.float32), "sample 0 is nan"),
        (np.r_[np.ones(10), np.inf, np.ones(RATE)], "sample 10 is inf"),
        (np.ones(100, np.float32), "100 samples at 8000 Hz"),
        (np.ones((2, RATE), np.float32), r"shape \(2, 8000\)"),
        (np.ones(0, np.float32), "0 samples"),
    ],
)
def test_samples_that_cannot_be_heard_are_refused(waveform, named):
    with pytest.raises(InputError, match=named):
        plain().predict(waveform, RATE)


def test_files_and_calls_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(InputError, match="sample_rate"):
        plain().predict(np.ones(RATE, np.float32))
    with pytest.raises(InputError, match=r"gone\.wav: no such file"):
        plain().predict(tmp_path / "gone.wav")
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    with pytest.raises(InputError, match=r"silent\.wav: silent"):
        plain().predict(tmp_path / "silent.wav")


def test_a_standardization_that_was_fitted_before_is_used():
    standardize = Standardize(40)
    standardize.fit([torch.randn(2, 1, 40, 9) + 5])
    classifier = SceneClassifier(LogMel(RATE, 256, 40, hop_length=80), Baseline2021(classes=3), CLASSES, standardize)
    waveforms = 0.1 * torch.randn(2, 4000)
    expected = (classifier.frontend(waveforms) - standardize.mean) / standardize.std
    torch.testing.assert_close(classifier.features(waveforms), expected)


def test_an_example_has_the_shape_of_the_features():
    assert plain().example(0.5).shape == (1, 1, 40, 26)
    assert not plain().example(0.5).any()
