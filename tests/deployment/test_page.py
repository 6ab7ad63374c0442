"""The page in headless Chromium, against the C file that it is made of: `make test-page` installs what it takes."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scene_files import CLASSES, CLIP_S, at

from tinyscene.deployment import export, page
from tinyscene.deployment.page import TOOLS
from tinyscene.errors import InputError

RATE, STEP_S, CLIPS = 8000, 0.25, 40
BROWSER = shutil.which("chromium")
browsers = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-page")
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no chromium: make test-page"),
    pytest.mark.skipif(any(shutil.which(tool) is None for tool in TOOLS["c"]), reason="no clang: make test-page"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    page(at("pham_cnn", "int8"), folder / "out", title="</script> & <!--<script> more", clip_s=CLIP_S, step_s=STEP_S)
    rng = np.random.default_rng(0)
    levels = np.repeat(rng.uniform(0.01, 0.5, 30), RATE // 2)
    soundfile.write(folder / "microphone.wav", rng.uniform(-1, 1, len(levels)) * levels, RATE)
    return folder


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Any]:
    with browsers.sync_playwright() as playwright:
        fake = f"--use-file-for-fake-audio-capture={folder / 'microphone.wav'}"
        yield playwright.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--use-fake-device-for-media-stream", fake]
        )


@pytest.fixture
def opened(browser: Any, folder: Path) -> Iterator[Any]:
    """The page, ready; it may print nothing."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    shown, printed = context.new_page(), list[str]()
    shown.on("console", lambda message: printed.append(message.text))
    shown.on("pageerror", lambda error: printed.append(str(error)))
    shown.goto((folder / "out" / "index.html").as_uri())
    shown.wait_for_selector("html[data-ready]")
    yield shown
    assert printed == []
    context.close()


def until(shown: Any, expression: str) -> None:
    """Wait until it is true: the page's policy forbids Playwright's own way, which evaluates strings."""
    for _ in range(600):
        if shown.evaluate(expression):
            return
        shown.wait_for_timeout(50)
    raise AssertionError(f"not within 30 s: {expression}; {shown.inner_text('#problem')}")


def test_recordings_have_the_probabilities_of_the_c_file(opened: Any, tmp_path: Path) -> None:
    file = export(at("pham_cnn", "int8"), tmp_path / "scene.c", front_end="inside", clip_s=CLIP_S, step_s=STEP_S)
    rng, step = np.random.default_rng(1), file.step_samples
    for clip in range(CLIPS):
        samples = rng.uniform(-1, 1, rng.integers(RATE, 2 * RATE)) * 10 ** rng.uniform(-3, 0)
        path = tmp_path / f"{clip}.wav"
        soundfile.write(path, samples, RATE, subtype="FLOAT")
        opened.set_input_files("#file", path)
        until(opened, "document.getElementById('detail').textContent.includes('Whole recording')")
        found = np.array(opened.evaluate("history.map((one) => one.alone)"))
        stream = file.stream()
        padded = np.pad(samples.astype(np.float32), (-len(samples) % step, 0))[None]
        wanted = [stream(padded[:, at : at + step])[0] for at in range(0, padded.shape[1], step)]
        full = -(-file.clip_samples // step)
        np.testing.assert_allclose(found, wanted[full - 1 :], atol=1e-5)
        opened.evaluate("document.getElementById('detail').textContent = ''")


def test_decisions_are_those_of_run_stream(opened: Any, tmp_path: Path) -> None:
    from tinyscene.listening import decisions

    file = export(at("pham_cnn", "int8"), tmp_path / "scene.c", front_end="inside", clip_s=CLIP_S, step_s=STEP_S)
    samples = np.random.default_rng(2).uniform(-0.3, 0.3, 12 * file.step_samples).astype(np.float32)
    samples *= np.linspace(0, 1, len(samples), dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    opened.set_input_files("#file", tmp_path / "a.wav")
    until(opened, "document.getElementById('detail').textContent.includes('Whole recording')")
    alone, smoothed = (np.array(opened.evaluate(f"history.map((one) => one.{name})")) for name in ("alone", "smoothed"))
    wanted = [*decisions(file, [samples], every_s=STEP_S)]
    np.testing.assert_allclose(alone, [[*one.probabilities.values()] for one in wanted], atol=1e-5)
    np.testing.assert_allclose(smoothed, [[*one.smoothed_probabilities.values()] for one in wanted], atol=1e-5)
    assert wanted[-1].smoothed in opened.inner_text("#scene")
    assert opened.get_attribute("#now", "data-state") == ("sure" if smoothed[-1].max() >= 0.5 else "unsure")


def test_the_microphone_is_kept_up_with(opened: Any) -> None:
    opened.context.grant_permissions(["microphone"])
    opened.focus("#listen")
    opened.keyboard.press("Enter")
    until(opened, "history.length > 0")
    before = opened.evaluate("history.length")
    opened.wait_for_timeout(5000)
    decisions = opened.evaluate("history.length") - before
    assert decisions * STEP_S == pytest.approx(5, abs=1)
    assert opened.evaluate("Math.max(...history.map((one) => Math.abs(one.alone.reduce((a, b) => a + b) - 1)))") < 1e-5
    assert opened.inner_text("#listen") == "Stop"
    opened.keyboard.press("Enter")
    until(opened, "document.getElementById('listen').textContent === 'Listen'")
    ended = opened.evaluate("history.length")
    opened.wait_for_timeout(800)
    assert opened.evaluate("history.length") == ended


def test_what_goes_wrong_gets_a_sentence(opened: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing of the kind")
    opened.set_input_files("#file", tmp_path / "broken.wav")
    until(opened, "!document.getElementById('problem').hidden")
    assert "broken.wav: this browser can't read it as sound. Accepted: WAV" in opened.inner_text("#problem")
    soundfile.write(tmp_path / "short.wav", np.zeros(1000), RATE)
    opened.set_input_files("#file", tmp_path / "short.wav")
    until(opened, "document.getElementById('problem').textContent.includes('0.13 s; accepted: at least 0.6 s')")
    opened.click("#listen")  # nothing was granted in this context
    until(opened, "document.getElementById('problem').textContent.includes('The microphone was refused')")


def test_the_page_may_fetch_nothing(browser: Any, folder: Path) -> None:
    shown = browser.new_page()
    shown.goto((folder / "out" / "index.html").as_uri())
    refused = shown.evaluate("""() => new Promise((resolve) => {
      addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
      fetch("https://example.org").catch(() => setTimeout(resolve, 2000, "the network"));
    })""")
    assert refused == "connect-src"
    shown.close()


def test_what_was_begun_last_is_what_is_heard(opened: Any, tmp_path: Path) -> None:
    for name, seconds in (("a", 1), ("b", 2)):
        soundfile.write(tmp_path / f"{name}.wav", np.random.default_rng(0).uniform(-1, 1, seconds * RATE), RATE)
    opened.evaluate("""() => {
      const real = OfflineAudioContext.prototype.decodeAudioData;
      let first = true;
      OfflineAudioContext.prototype.decodeAudioData = async function (content) {
        const slow = first;
        first = false;
        if (slow) await new Promise((resolve) => setTimeout(resolve, 1000));
        return real.call(this, content);
      };
    }""")
    opened.set_input_files("#file", tmp_path / "a.wav")
    opened.set_input_files("#file", tmp_path / "b.wav")
    until(opened, "document.getElementById('detail').textContent.includes('Whole recording')")
    before = opened.evaluate("[steps, document.getElementById('detail').textContent]")
    opened.wait_for_timeout(1500)
    assert opened.evaluate("[steps, document.getElementById('detail').textContent]") == before


def test_two_clicks_leave_no_microphone_on(opened: Any) -> None:
    opened.context.grant_permissions(["microphone"])
    opened.evaluate("""() => {
      const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      window.tracks = [];
      navigator.mediaDevices.getUserMedia = async (wanted) => {
        const stream = await real(wanted);
        tracks.push(...stream.getTracks());
        await new Promise((resolve) => setTimeout(resolve, 300));
        return stream;
      };
    }""")
    opened.click("#listen")
    opened.click("#listen")
    until(opened, "document.getElementById('listen').textContent === 'Stop'")
    opened.click("#listen")
    until(opened, "tracks.length === 2 && tracks.every((track) => track.readyState === 'ended')")


@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_is_drawn_at_every_size(opened: Any, tmp_path: Path, width: int, scheme: str) -> None:
    opened.set_viewport_size({"width": width, "height": 800})
    opened.emulate_media(color_scheme=scheme)
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-1, 1, 2 * RATE), RATE)
    opened.set_input_files("#file", tmp_path / "a.wav")
    until(opened, "document.getElementById('detail').textContent.includes('Whole recording')")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    drawn = "(canvas) => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size"
    assert opened.eval_on_selector("#spectrogram", drawn) > 20
    assert opened.title() == "</script> & <!--<script> more: what does it sound like?"
    names = [row.inner_text() for row in opened.query_selector_all(".name")]
    assert names == [*CLASSES]
    # What is read and what it is read on differ enough (WCAG 2.1: 4.5).
    contrast = """(selector) => {
      const bright = (colour) => {
        const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
        const linear = parts.map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
      };
      const text = bright(getComputedStyle(document.querySelector(selector)).color);
      const ground = bright(getComputedStyle(document.body).backgroundColor);
      return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    }"""
    for selector in ("h1", "header p", ".share", ".hint", "#detail", ".button"):
        assert opened.evaluate(contrast, selector) > 4.5


def test_a_missing_compiler_and_an_unknown_length_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="length is unknown; accepted: clip_s"):
        page(at("pham_cnn", "int8"), tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        InputError, match="not installed: clang, wasm-ld, gcc .engine c. or npm .engine onnx.; accepted: clang"
    ):
        page(at("pham_cnn", "int8"), tmp_path, clip_s=CLIP_S)
    assert not list(tmp_path.iterdir())


def test_the_command_shows_the_models_name(tinyscene: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    model = at("pham_cnn", "int8").save(tmp_path / "my model")
    code, said = tinyscene("page", model, tmp_path / "out", "--clip-s", CLIP_S, "--step-s", 0.3)
    assert code == 0, said
    assert "open it in a browser" in said
    text = (tmp_path / "out" / "index.html").read_text()
    assert "<title>my model: what does it sound like?</title>" in text
    code, said = tinyscene("page", model, tmp_path / "other")
    assert code != 0
    assert "length is unknown; accepted: clip_s (--clip-s)" in said


def test_another_page_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("my site")
    with pytest.raises(InputError, match="index.html: not written by tinyscene.*accepted: another folder"):
        page(at("pham_cnn", "int8"), tmp_path, clip_s=CLIP_S)
    assert (tmp_path / "index.html").read_text() == "my site"


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm")
def test_the_other_engine_has_the_same_probabilities(opened: Any, tmp_path: Path) -> None:
    made = page(at("pham_cnn", "int8"), tmp_path / "onnx", clip_s=CLIP_S, step_s=STEP_S, engine="onnx")
    samples = np.random.default_rng(2).uniform(-0.3, 0.3, 2 * RATE)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    found = []
    for _ in range(2):
        opened.set_input_files("#file", tmp_path / "a.wav")
        until(opened, "document.getElementById('detail').textContent.includes('Whole recording')")
        found.append(opened.evaluate("history.map((one) => one.alone)"))
        opened.goto(made.as_uri())
        opened.wait_for_selector("html[data-ready]", timeout=60_000)
    np.testing.assert_allclose(*found, atol=1e-5)


def test_the_model_is_the_only_thing_that_differs(folder: Path) -> None:
    text = (folder / "out" / "index.html").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("const MODEL = ")]
    model = json.loads(line.removeprefix("const MODEL = ").removesuffix(";"))
    assert model["classes"] == [*CLASSES]
    assert model["step_samples"] == STEP_S * RATE
    assert "http://" not in text.replace(line, "")
    assert "https://" not in text.replace(line, "")
