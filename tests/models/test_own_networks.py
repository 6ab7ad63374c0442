"""Networks and front ends of a user's own, as they are commonly written."""

import numpy as np
import pytest
import torch
from torch import nn

from menus import menus
from tinyscene.compression import FilterPruning, HalfPrecision, Quantize
from tinyscene.errors import InputError
from tinyscene.features import FRONTENDS, FrontEnd, LogMel, Standardize, register_frontend
from tinyscene.models import NETWORKS, create_classifier, create_model, register_network
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.preparation import prepare
from tinyscene.systems.count import count_model

CLASSES = ("bus", "park", "tram")
RATE, BANDS = 8000, 20


class Own(nn.Module):
    """Two convolutions and a mean over time, without `arguments`; `width` and `dilation` stand in attributes."""

    def __init__(self, width: int = 6, classes: int = 3, dilation: int = 1, inputs: int = 1) -> None:
        super().__init__()
        self.width, self.classes, self.dilation, self.inputs = width, classes, dilation, inputs
        self.conv = nn.Conv2d(inputs, width, 3, padding=dilation, dilation=dilation)
        self.more = nn.Conv2d(width, width, 3, padding=1)
        self.dense = nn.Linear(width, classes)

    def forward(self, features):
        return self.dense(self.more(self.conv(features).relu()).relu().mean((2, 3)))


class Forgetful(Own):
    """Tells nothing of what it was built with."""

    def __init__(self, width: int = 6, classes: int = 3, dilation: int = 1) -> None:
        super().__init__(width, classes, dilation)
        del self.width, self.dilation


class Viewing(Own):
    """As most recurrent networks of tutorials: `view` after a convolution, a GRU over the frames, frames free."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(6 * BANDS, 6, batch_first=True)

    def forward(self, features):
        mapped = self.more(self.conv(features).relu())
        batch, channels, bands, frames = mapped.shape
        rows = mapped.view(batch, channels * bands, frames).transpose(1, 2)
        return self.dense(self.recurrent(rows)[0].mean(1))


class ViewingConvs(Own):
    def forward(self, features):
        mapped = self.more(self.conv(features).relu())
        return self.dense(mapped.view(mapped.shape[0], mapped.shape[1], -1).mean(2))


def frontend() -> LogMel:
    return LogMel(RATE, 256, BANDS, hop_length=160)


def around(network, front=None) -> SceneClassifier:
    return SceneClassifier(front or frontend(), network, CLASSES).eval()


def noise(seconds: float = 1.0, clips: int = 2) -> torch.Tensor:
    return 0.1 * torch.randn(clips, round(seconds * RATE), generator=torch.Generator().manual_seed(5))


@pytest.fixture
def menu():
    """The menu, with the classes above."""
    with menus(Own=Own, Forgetful=Forgetful, Viewing=Viewing, ViewingConvs=ViewingConvs):
        yield


def test_a_network_that_is_on_no_menu_is_pruned_quantized_and_halved_but_not_saved(tmp_path):
    classifier = around(Own())
    for stage in (FilterPruning("more", 0.5), Quantize(), HalfPrecision()):
        assert stage.shape(classifier)(noise()).shape == (2, 3)
    with pytest.raises(InputError, match="Own is on no menu and can't be saved .*; accepted: aemnet.*register_"):
        classifier.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("stage", [None, FilterPruning("more", 0.5), HalfPrecision(), Quantize()])
def test_what_a_network_was_built_with_is_recorded_once_its_class_is_registered(menu, tmp_path, stage):
    classifier = around(Own(width=8, dilation=2))
    classifier = stage.shape(classifier) if stage else classifier
    loaded = SceneClassifier.load(classifier.save(tmp_path))
    assert torch.equal(loaded(noise()), classifier.eval()(noise()))


@pytest.mark.parametrize("make", [lambda: create_model("Forgetful", dilation=4), lambda: Forgetful(6, dilation=4)])
def test_a_class_that_keeps_nothing_of_its_arguments_is_saved_and_loaded(menu, tmp_path, make):
    made = around(make())
    assert torch.equal(SceneClassifier.load(made.save(tmp_path))(noise()), made(noise()))


def test_what_was_built_before_it_was_registered_or_from_more_than_plain_values_is_not_saved(tmp_path):
    early = Forgetful()
    with menus(Forgetful=Forgetful):
        with pytest.raises(InputError, match="Forgetful can't be saved: it was built before its class was registered"):
            around(early).save(tmp_path / "model")
        with pytest.raises(InputError, match=r"Forgetful can't be saved: it was built with width=tensor\(6\)"):
            around(Forgetful(torch.tensor(6))).save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_name_belongs_to_one_class_and_its_file_may_run_again():
    with menus(Own=Own):
        register_network("Own", Own)
        with pytest.raises(InputError, match=r"'Own' is already test_own_networks\.Own; try another name"):
            register_network("Own", Forgetful)
        with pytest.raises(InputError, match="'logmel' is already .*LogMel"):
            register_frontend("logmel", Half)


class Half(FrontEnd):
    """Tells twice the frames that it gives."""

    sample_rate, bands, hop_length = RATE, 1, 2

    def forward(self, waveforms):
        return waveforms[:, None, None, ::4]


def test_a_front_end_that_gives_other_features_than_it_tells_is_refused():
    with pytest.raises(InputError, match=r"Half gives \(1, 1, 1, 2000\) for 8000 samples; .*1 bands, 4000 frames"):
        around(Own(), Half())
    with pytest.raises(InputError, match=r"Linear is not a front end; accepted: .*FrontEnd"):
        around(Own(), nn.Linear(3, 3))


@pytest.mark.parametrize("int8", [False, True])
def test_arguments_that_build_another_function_are_refused_at_save(menu, tmp_path, int8):
    network = Own(dilation=4)
    network.arguments = {"width": 6}
    classifier = around(network)
    if int8:
        prepared = prepare(network, classifier.short_example())
        prepared.set_ranges([classifier.features(noise())])
        classifier = around(prepared.convert())
    with pytest.raises(InputError, match=r"Own built with {'width': 6} is not the function"):
        classifier.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    network.extra = nn.Linear(3, 3)
    with pytest.raises(InputError, match="has no extra"):
        around(network).save(tmp_path / "model")


def test_a_network_without_a_front_end_of_its_own_is_asked_for_one(menu):
    for call in (lambda: create_classifier("Own", CLASSES), lambda: count_model("Own")):
        with pytest.raises(
            InputError,
            match=r"'Own' has no front end; .*register_network\('Own'",
        ):
            call()


@pytest.mark.parametrize(
    ("output", "named"),
    [
        (lambda logits: (logits, logits), "gives tuple"),
        (lambda logits: {"logits": logits}, "gives dict"),
        (lambda logits: logits[:, None].expand(-1, 7, -1), r"shape \(2, 7, 3\)"),
        (lambda logits: logits[:, :2], r"shape \(2, 2\)"),
        (lambda logits: logits.argmax(1), r"torch\.int64"),
    ],
)
def test_what_is_no_logits_is_refused(output, named):
    network = Own()
    network.register_forward_hook(lambda _module, _given, logits: output(logits))
    with pytest.raises(InputError, match=rf"{named}.*accepted: one tensor of logits \(batch, classes\)"):
        around(network)(noise())


@pytest.mark.parametrize("kind", [Viewing, ViewingConvs])
def test_a_network_that_views_its_maps_is_handed_contiguous_ones(menu, tmp_path, kind):
    network = kind().eval()
    features = torch.randn(2, 1, BANDS, 51)
    expected = network(features)
    classifier = around(network)
    torch.testing.assert_close(classifier.classify(features), expected)
    loaded = SceneClassifier.load(classifier.save(tmp_path))
    torch.testing.assert_close(loaded.classify(features), expected)
    if kind is ViewingConvs:
        for stage in (Quantize(), FilterPruning("more", 0.5)):
            assert stage.shape(classifier)(noise()).shape == (2, 3)


def test_networks_of_the_menu_have_their_channels_last():
    for name in NETWORKS:
        network = create_classifier(name, CLASSES).network
        maps = any(tensor.ndim == 4 for tensor in network.parameters())
        assert hasattr(network, "memory_format") != maps, name


def test_clips_of_another_length_are_refused_by_a_sentence_where_a_dense_layer_reads_all_frames():
    class Flat(Own):
        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(6 * BANDS * 51, 3)

        def forward(self, features):
            return self.dense(self.conv(features).flatten(1))

    classifier = around(Flat())
    assert classifier(noise(1.0)).shape == (2, 3)
    with pytest.raises(
        InputError, match=r"Flat can't take features of shape \(2, 1, 20, 76\).*accepted: clips as long"
    ):
        classifier(noise(1.5))


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_norms_of_the_old_form_are_refused_and_those_of_the_new_are_copied(menu, tmp_path, norm):
    network = Own()
    norm(network.conv)
    with pytest.raises(InputError, match=r"conv has .*accepted: those of torch\.nn\.utils\.parametrizations"):
        around(network)
    network = Own()
    getattr(nn.utils.parametrizations, norm.__name__)(network.conv)
    assert HalfPrecision().shape(around(network))(noise()).shape == (2, 3)


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double", "float"])
def test_a_classifier_that_was_cast_predicts_as_before(cast):
    classifier, waveform = around(Own()), noise()[0].numpy()
    expected = classifier.predict(waveform, RATE).probabilities
    found = getattr(classifier, cast)().predict(waveform, RATE).probabilities
    assert classifier.frontend.weights.dtype == classifier.standardize.mean.dtype == torch.float32
    np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=5e-3)


def test_features_of_64_bits_are_classified():
    class Exact(LogMel):
        def forward(self, waveforms):
            return super().forward(waveforms).double()

    classifier = around(Own())
    exact = SceneClassifier(Exact(RATE, 256, BANDS, hop_length=160), classifier.network, CLASSES)
    assert torch.equal(exact(noise()), classifier(noise()))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int8, np.uint8])
def test_integers_are_scaled_as_sound_files_are(dtype, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    floats = np.random.default_rng(0).uniform(-0.5, 0.5, RATE)
    limits = np.iinfo(dtype)
    half = 2.0 ** (limits.bits - 1)
    whole = np.round(floats * half + (half if dtype == np.uint8 else 0)).astype(dtype)
    classifier = around(Own())
    found = classifier.predict(whole, RATE).probabilities
    subtype = {np.int16: "PCM_16", np.int32: "PCM_32", np.int8: "PCM_S8", np.uint8: "PCM_U8"}[dtype]
    if dtype in (np.int16, np.int32):
        soundfile.write(tmp_path / "clip.wav", whole, RATE, subtype=subtype)
        assert found == classifier.predict(tmp_path / "clip.wav").probabilities
    expected = classifier.predict(np.round(floats * half).astype(np.float32) / np.float32(half), RATE).probabilities
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)
    with pytest.raises(InputError, match="type int64; accepted: float, or integers"):
        classifier.predict(whole.astype(np.int64), RATE)


def test_a_waveform_without_a_batch_is_refused():
    for front in (frontend(), FRONTENDS["raw"](RATE), around(Own()).features):
        with pytest.raises(InputError, match=r"shape \(8000,\); accepted: \(batch, samples\)"):
            front(noise()[0])


class LearnedBands(FrontEnd):
    """Filters that are trained."""

    sample_rate, bands, hop_length, shortest_samples = RATE, BANDS, 160, 256

    def __init__(self):
        super().__init__()
        self.filters = nn.Conv1d(1, BANDS, 256, 160)

    def forward(self, waveforms):
        return self.filters(waveforms[:, None])[:, None]


def test_a_seed_decides_the_values_of_front_end_and_network():
    with menus():
        register_network("own", Own, frontend=LearnedBands, standardized=False)
        first, again, other = (create_classifier("own", CLASSES, seed=seed) for seed in (0, 0, 1))
        assert first.standardize.fitted
    for part in ("frontend.filters.weight", "network.conv.weight"):
        values = [classifier.get_parameter(part) for classifier in (first, again, other)]
        assert torch.equal(values[0], values[1])
        assert not torch.equal(values[0], values[2])


def test_bands_given_as_a_range_are_saved_and_a_standardization_for_others_is_refused(tmp_path):
    front = LogMel(RATE, 256, BANDS, hop_length=160, kept=range(3, 13))
    with menus(Own=Own):
        classifier = around(Own(), front)
        loaded = SceneClassifier.load(classifier.save(tmp_path))
    assert torch.equal(loaded(noise()), classifier(noise()))
    with pytest.raises(InputError, match=r"standardize of \(1, 20\) channels and bands; accepted: \(1, 10\)"):
        SceneClassifier(front, Own(), CLASSES, Standardize(BANDS))
