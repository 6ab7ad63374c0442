"""A page that listens: one HTML file with the model in it as WebAssembly, which needs no server and no network."""

import base64
import json
import shutil
import subprocess
import tarfile
import tempfile
from importlib.resources import files
from pathlib import Path

from tinyscene.deployment.artifact import Artifact
from tinyscene.deployment.c_format import COMPUTES, header_of
from tinyscene.deployment.export import export
from tinyscene.errors import InputError
from tinyscene.files import write_whole
from tinyscene.models.classifier import SceneClassifier

# In every page.
_OURS = "const MODEL = "
TEMPLATES = files("tinyscene.deployment") / "page"
# Time constant of smoothing, as in `tinyscene run --stream`, and the probability below which a decision is unsure.
SMOOTH_S, UNSURE = 3.0, 0.5
# Of the engines, in the order in which they are tried.
TOOLS = {"c": ("clang", "wasm-ld", "gcc"), "onnx": ("npm",)}
ONNXRUNTIME_WEB = "1.30.0"
# Vector instructions are in every browser since 2023; integers stay the same, and so do sums of floats.
FLAGS = ("--target=wasm32", "-O3", "-msimd128", "-mbulk-memory", "-nostdlib", "-nostdlibinc", "-isystem", "include")
# A function that neither the file nor the page has is refused here, and not in the browser.
_LINK = ("-Werror=implicit-function-declaration", "-Wl,--no-entry", "-Wl,--allow-undefined", "-Wl,--strip-all")


def page(
    classifier: SceneClassifier,
    folder: str | Path,
    *,
    title: str = "A scene classifier",
    credits: str = "",
    clip_s: float | None = None,
    step_s: float = 0.5,
    engine: str | None = None,
) -> Path:
    """Write FOLDER/index.html: it classifies recordings and the microphone, and nothing leaves the browser.

    The model is exported in steps, which compares the file with the classifier, and put into the page: as C compiled
    for WebAssembly by clang, or as an ONNX file with onnxruntime-web, a hundred times as large.

    Args:
        title, credits: shown on the page; credits are those of the model, such as its licence and recordings.
        clip_s: length of the clips; that of the training clips where None.
        step_s: a decision each, to the nearest hop; at most half a clip.
        engine: "c", which needs clang, lld and gcc, or "onnx", which needs npm; the first that is there where None.

    Raises:
        InputError: an engine's tools are missing, the model can't be exported in steps, or the folder can't be written,
            or holds another page.
    """
    name, out = _chosen(engine), Path(folder) / "index.html"
    if out.exists() and _OURS not in out.read_text(errors="replace"):
        raise InputError(f"{out}: not written by tinyscene, and would be replaced; accepted: another folder")
    length = classifier.trained_clip_s if clip_s is None else clip_s
    if length is None:
        raise InputError("the model was not trained, so that its clips' length is unknown; accepted: clip_s (--clip-s)")
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / f"scene.{name}"
        try:
            file = export(classifier, path, front_end="inside", clip_s=clip_s, step_s=min(step_s, length / 2))
        except InputError as error:
            raise InputError(str(error).replace(str(path), str(out))) from error
        code = _compiled(path) if name == "c" else path.read_bytes()
        engine_name, more = f"C as WebAssembly, {len(code) / 1000:.0f} kB", dict[str, str]()
        if name == "onnx":
            engine_name, more = _runtime(Path(work))
        model = {"code": _in_base64(code), **more}
        text = _rendered(file, classifier, model, engine=name, engine_name=engine_name, title=title, credits=credits)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(out) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: can't be written ({error.strerror or error}); accepted: a writable folder") from error
    return out


def _chosen(engine: str | None) -> str:
    """The engine asked for, or the first whose tools are there."""
    if engine is not None and engine not in TOOLS:
        raise InputError(f"page was given engine={engine!r}; accepted: {', '.join(TOOLS)}")
    missing = {
        name: [tool for tool in tools if shutil.which(tool) is None]
        for name, tools in TOOLS.items()
        if engine in (None, name)
    }
    found = next((name for name, tools in missing.items() if not tools), None)
    if found is None:
        wanted = " or ".join(f"{', '.join(tools)} (engine {name})" for name, tools in missing.items())
        raise InputError(
            f"not installed: {wanted}; accepted: clang, lld and gcc (apt-get install clang lld gcc), or npm"
        )
    return found


def _compiled(path: Path) -> bytes:
    """A C file in steps as WebAssembly."""
    place = path.parent
    (place / "scene.h").write_text(header_of(path))
    shutil.copytree(str(TEMPLATES / "include"), place / "include", dirs_exist_ok=True)
    (place / "engine.c").write_text((TEMPLATES / "engine.c").read_text())
    command = [TOOLS["c"][0], *COMPUTES, *FLAGS, *_LINK, path.name, "engine.c", "-o", "scene.wasm"]
    made = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    if made.returncode:
        raise InputError(f"{command[0]} can't compile the model for WebAssembly: {made.stderr.strip()[:300]}")
    return (place / "scene.wasm").read_bytes()


def _runtime(place: Path) -> tuple[str, dict[str, str]]:
    """onnxruntime-web from npm: its name, and what the page takes of it."""
    package = f"onnxruntime-web@{ONNXRUNTIME_WEB}"
    made = subprocess.run(["npm", "pack", package], cwd=place, capture_output=True, text=True, check=False)
    if made.returncode:
        raise InputError(f"npm can't fetch {package}: {made.stderr.strip()[-300:]}; try again, or engine c")
    with tarfile.open(place / made.stdout.split()[-1]) as archive:
        archive.extractall(place, filter="data")
    files = {"runtime": "ort.wasm.bundle.min.mjs", "runtime_code": "ort-wasm-simd-threaded.wasm"}
    dist = place / "package" / "dist"
    return f"ONNX on {package} (MIT)", {name: _in_base64((dist / file).read_bytes()) for name, file in files.items()}


def _in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _rendered(file: Artifact, classifier: SceneClassifier, code: dict[str, str], *, engine: str, **shown: str) -> str:
    """The page; `shown` are its title, credits and the engine's name."""
    import jinja2
    from markupsafe import Markup

    ledger, facts, step = file.certificate.ledger, file.facts, file.step_samples or 0
    frontend = classifier.frontend
    frames = frontend.frames(file.clip_samples or 0)
    clip_s = round((file.clip_samples or 0) / classifier.sample_rate, 2)
    raw = facts["frontend"]["name"] == "raw"
    model = {
        "classes": classifier.classes,
        "sample_rate": classifier.sample_rate,
        "channel": classifier.channel,
        "clip_samples": file.clip_samples,
        "clip_s": clip_s,
        "step_samples": step,
        "state_size": facts["state_size"],
        "kept_frames": frames - step // frontend.hop_length,
        "bands": frontend.bands,
        "raw": raw,
        "smooth_s": SMOOTH_S,
        "unsure": UNSURE,
        **code,
    }
    named = {
        **shown,
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
        # `</script>` would end the script, `<!--` begin a comment.
        "model": json.dumps(model).replace("<", "\\u003c"),
        "style": (TEMPLATES / "page.css").read_text(),
        "engine": (TEMPLATES / f"engine_{engine}.js").read_text(),
        "script": (TEMPLATES / "page.js").read_text(),
    }
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    for name in ("model", "style", "engine", "script"):
        named[name] = Markup(named[name])
    return environment.from_string((TEMPLATES / "page.html").read_text(encoding="utf-8")).render(named)
