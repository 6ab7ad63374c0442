"""A page that listens: one HTML file with the model in it as WebAssembly, which needs no server and no network."""

import base64
import json
import shutil
import subprocess
import tempfile
from importlib.resources import files
from math import ceil
from pathlib import Path

from tinyscene.deployment.artifact import Artifact
from tinyscene.deployment.c_format import COMPUTES, header_of
from tinyscene.deployment.export import export
from tinyscene.errors import InputError
from tinyscene.files import write_whole
from tinyscene.models.classifier import SceneClassifier

TEMPLATES = files("tinyscene.deployment") / "page"
# Time constant of smoothing, as in `tinyscene run --stream`, and the probability below which a decision is unsure.
SMOOTH_S, UNSURE = 3.0, 0.5
COMPILER, LINKER = "clang", "wasm-ld"
# Vector instructions are in every browser since 2023; integers stay the same, and so do sums of floats.
FLAGS = ("--target=wasm32", "-O3", "-msimd128", "-mbulk-memory", "-nostdlib", "-nostdlibinc", "-isystem", "include")
_LINK = ("-Wl,--no-entry", "-Wl,--allow-undefined", "-Wl,--strip-all")


def page(
    classifier: SceneClassifier,
    folder: str | Path,
    *,
    title: str = "A scene classifier",
    credits: str = "",
    clip_s: float | None = None,
    step_s: float = 0.5,
) -> Path:
    """Write FOLDER/index.html: it classifies recordings and the microphone, and nothing leaves the browser.

    The model is exported as C in steps, which compares it with the classifier, and compiled for WebAssembly by clang.

    Args:
        title, credits: shown on the page; credits are those of the model, such as its licence and recordings.
        clip_s: length of the clips; that of the training clips where None.
        step_s: a decision each, to the nearest hop; at most half a clip.

    Raises:
        InputError: clang or lld is missing, the model can't be exported as C in steps, or the folder can't be written.
    """
    if missing := [name for name in (COMPILER, LINKER) if shutil.which(name) is None]:
        raise InputError(f"{', '.join(missing)}: not installed; accepted: clang and lld (apt-get install clang lld)")
    length = classifier.trained_clip_s if clip_s is None else clip_s
    if length is None:
        raise InputError("the model was not trained, so that its clips' length is unknown; accepted: clip_s (--clip-s)")
    with tempfile.TemporaryDirectory() as work:
        place = Path(work)
        step_s = min(step_s, length / 2)
        file = export(classifier, place / "scene.c", front_end="inside", clip_s=clip_s, step_s=step_s)
        text = _rendered(file, classifier, _compiled(file.path), title, credits)
    out = Path(folder) / "index.html"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(out) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: can't be written ({error.strerror or error}); accepted: a writable folder") from error
    return out


def _compiled(path: Path) -> bytes:
    """A C file in steps as WebAssembly."""
    place = path.parent
    (place / "scene.h").write_text(header_of(path))
    shutil.copytree(str(TEMPLATES / "include"), place / "include")
    (place / "engine.c").write_text((TEMPLATES / "engine.c").read_text())
    command = [COMPILER, *COMPUTES, *FLAGS, *_LINK, path.name, "engine.c", "-o", "scene.wasm"]
    made = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    if made.returncode:
        raise InputError(f"{COMPILER} can't compile the model for WebAssembly: {made.stderr.strip()[:300]}")
    return (place / "scene.wasm").read_bytes()


def _rendered(file: Artifact, classifier: SceneClassifier, code: bytes, title: str, credits: str) -> str:
    import jinja2
    from markupsafe import Markup

    ledger, facts, step = file.certificate.ledger, file.facts, file.step_samples or 0
    frontend = classifier.frontend
    frames = frontend.frames(file.clip_samples or 0)
    clip_s = (file.clip_samples or 0) / classifier.sample_rate
    # At most a frame more than the clips' seconds.
    clip_s = ceil(clip_s * 10 - 0.5) / 10
    raw = facts["frontend"]["name"] == "raw"
    model = {
        "classes": classifier.classes,
        "sample_rate": classifier.sample_rate,
        "channel": classifier.channel,
        "clip_s": clip_s,
        "step_samples": step,
        "state_size": facts["state_size"],
        "kept_frames": frames - step // frontend.hop_length,
        "bands": frontend.bands,
        "raw": raw,
        "smooth_s": SMOOTH_S,
        "unsure": UNSURE,
        "code": base64.b64encode(code).decode(),
    }
    named = {
        "title": title,
        "credits": credits,
        "classes": classifier.classes,
        "clip_s": clip_s,
        "step_s": step / classifier.sample_rate,
        "smooth_s": SMOOTH_S,
        "unsure": round(100 * UNSURE),
        "sample_rate": classifier.sample_rate,
        "channel": classifier.channel,
        "picture": "the waveform" if raw else "low frequencies at the bottom",
        "precision": classifier.precision,
        "kilobytes": round(sum(row.bytes for row in ledger.tensors) / 1000),
        "macs": f"{ledger.macs['nessi'] / 1e6:.1f}",
        "engine_name": f"C as WebAssembly, {len(code) / 1000:.0f} kB",
        # `</script>` would end the script.
        "model": json.dumps(model).replace("</", "<\\/"),
        "style": (TEMPLATES / "page.css").read_text(),
        "engine": (TEMPLATES / "engine_c.js").read_text(),
        "script": (TEMPLATES / "page.js").read_text(),
    }
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    for name in ("model", "style", "engine", "script"):
        named[name] = Markup(named[name])
    return environment.from_string((TEMPLATES / "page.html").read_text(encoding="utf-8")).render(named)
