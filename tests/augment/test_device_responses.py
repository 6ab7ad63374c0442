"""Impulse responses of devices against SciPy."""

import numpy as np
import pytest
import scipy.signal
import soundfile

from tinyscene.augment import DeviceImpulseResponse
from tinyscene.errors import InputError

RATE = 8000


@pytest.fixture
def waveform():
    return np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)


def responses(folder, **by_name):
    folder.mkdir(exist_ok=True)
    for name, response in by_name.items():
        soundfile.write(folder / f"{name}.wav", np.asarray(response, np.float32), RATE, subtype="FLOAT")
    return str(folder)


def impulse(taps, at=0, length=1000):
    response = np.zeros(length)
    response[at : at + len(taps)] = taps
    return response


@pytest.mark.parametrize(("height", "delay"), [(1.0, 0), (0.25, 0), (0.5, 321)])
def test_a_delta_is_the_identity_whatever_its_height_and_delay(tmp_path, waveform, height, delay):
    folder = responses(tmp_path / "irs", delta=impulse([height], delay))
    heard = DeviceImpulseResponse(folder, p=1.0)(waveform, RATE, np.random.default_rng(0))
    np.testing.assert_allclose(heard, waveform, atol=1e-6)


def test_a_known_response_equals_scipys_filter_at_the_level_of_the_clip(tmp_path, waveform):
    taps = scipy.signal.firwin(41, 1500, fs=RATE)
    response = impulse(taps)
    folder = responses(tmp_path / "irs", lowpass=response)
    heard = DeviceImpulseResponse(folder, p=1.0)(waveform, RATE, np.random.default_rng(0))
    # A linear-phase filter delays by its middle tap, which is the highest.
    filtered = scipy.signal.lfilter(taps, 1.0, np.concatenate([waveform, np.zeros(20)]))[20:]
    expected = filtered * np.sqrt(np.mean(waveform.astype(np.float64) ** 2) / np.mean(filtered**2))
    assert len(heard) == len(waveform)
    assert heard.dtype == np.float32
    np.testing.assert_allclose(heard, expected, atol=1e-5)


def test_one_file_is_that_microphone(tmp_path, waveform):
    folder = responses(tmp_path / "irs", a=impulse([1, 0.9]), b=impulse([1, -0.9]))
    alone = responses(tmp_path / "alone", b=impulse([1, -0.9]))
    rngs = [np.random.default_rng(0) for _ in range(2)]
    one, other = (
        DeviceImpulseResponse(place, 1.0)(waveform, RATE, rng)
        for place, rng in zip((f"{folder}/b.wav", alone), rngs, strict=True)
    )
    np.testing.assert_array_equal(one, other)


def test_every_response_is_used_and_p_decides_how_often(tmp_path, waveform):
    folder = responses(tmp_path / "irs", a=impulse([1, 0.9]), b=impulse([1, -0.9]), c=impulse([1, 0, 0.9]))
    outcomes = [DeviceImpulseResponse(folder, 0.4)(waveform, RATE, np.random.default_rng(seed)) for seed in range(200)]
    untouched = np.mean([np.array_equal(outcome, waveform) for outcome in outcomes])
    assert 0.5 < untouched < 0.7
    assert len({outcome.tobytes() for outcome in outcomes}) == 4
    never = DeviceImpulseResponse(folder, 0.0)(waveform, RATE, np.random.default_rng(0))
    np.testing.assert_array_equal(never, waveform)


def test_a_folder_without_sound_files_is_named(tmp_path, waveform):
    with pytest.raises(InputError, match=f"{tmp_path.name}.*no sound files"):
        DeviceImpulseResponse(str(tmp_path))(waveform, RATE, np.random.default_rng(0))


def test_measured_microphones_keep_length_and_level(shared_data, waveform):
    augmentation = DeviceImpulseResponse(str(shared_data("microphone_irs")), p=1.0)
    for seed in range(5):
        heard = augmentation(waveform, RATE, np.random.default_rng(seed))
        assert len(heard) == len(waveform)
        np.testing.assert_allclose(np.std(heard), np.std(waveform), rtol=1e-2)
        # The delay is out: the clip correlates with what was recorded at no shift, or nearly none.
        shift = scipy.signal.correlate(heard, waveform, "same").argmax() - len(waveform) // 2
        assert abs(shift) <= 2
