"""The text of a C file: its form filled into the templates of c/."""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from tinyscene.deployment.c_network import TEMPLATES, Buffer, network_in_c
from tinyscene.deployment.forms import Form, FormModule
from tinyscene.deployment.onnx_format import onnx_model
from tinyscene.errors import InputError
from tinyscene.features import FRONTENDS, FrontEnd, Raw
from tinyscene.features.spectrogram import BandSpectrogram

GENERATOR = "emx-onnx-cgen"


def source(form: Form, metadata: Mapping[str, str]) -> str:
    """C99 for a form; the metadata stand in a comment.

    Raises:
        InputError: there is no C for its front end or its network.
    """
    import jinja2

    facts = json.loads(metadata["tinyscene"])
    frontend = FRONTENDS[facts["frontend"]["name"]](**facts["frontend"]["arguments"])
    named, buffers = _named(form, frontend, facts["classes"]), list[Buffer]()
    if named["inside"]:
        named |= _front_end(form, frontend)
        buffers.append(Buffer("features", 4 * named["channels"] * named["bands"] * named["frames"], -1, -1))
        if not named["raw"]:
            buffers.append(Buffer("work", 4 * (named["work_floats"] + named["bands"]), -1, -1))
    network = network_in_c(onnx_model(_network_alone(form, named)), buffers)
    named |= {"network": network.text.strip(), "arena_words": max(1, -(-network.arena // 8))}
    named |= {f"{one.name}_at": network.offsets[one.name] for one in buffers}
    # Neither /* nor */ may stand in the comment.
    named |= {"metadata": json.dumps(dict(metadata)).replace("/", "\\u002f")}
    named |= {"version": version("tinyscene"), "generator": version(GENERATOR)}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(TEMPLATES)),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals |= {"table": table, "number": number}
    return str(environment.get_template("scene.c.j2").render(named))


def _named(form: Form, frontend: FrontEnd, classes: list[str]) -> dict[str, Any]:
    """What all templates read. Raises InputError for a front end inside that has no C."""
    shape, inside = form.examples[0].shape, form.front_end == "inside"
    if inside and not isinstance(frontend, BandSpectrogram | Raw):
        raise InputError(
            f"{type(frontend).__name__} has no C; accepted: spectrograms and raw waveforms, or the front end outside"
        )
    if form.module.frontend is not None:
        with torch.no_grad():
            made = form.module.frontend(*form.examples)
        shape = made[0].shape if form.step_samples else made.shape
    return {
        "inside": inside,
        "raw": isinstance(frontend, Raw),
        "step": form.step_samples,
        "state": form.examples[1].shape[1] if form.step_samples else 0,
        "samples": form.samples,
        "inputs": form.examples[0].numel(),
        "sample_rate": frontend.sample_rate,
        "channel": "mean" if frontend.channel is None else frontend.channel,
        "frontend": type(frontend).__name__,
        "channels": shape[1],
        "bands": shape[2],
        "frames": shape[3],
        "classes": len(classes),
        "labels": [literal(name) for name in classes],
    }


def _network_alone(form: Form, named: Mapping[str, Any]) -> Form:
    """The form with its front end outside, at 32 bits."""
    network = copy.deepcopy(form.module.network)
    module = FormModule(network if form.int8 else network.float()).eval()
    return replace(form, module=module, examples=(torch.zeros(1, named["channels"], named["bands"], named["frames"]),))


def _front_end(form: Form, frontend: FrontEnd) -> dict[str, Any]:
    """What the front end's template reads."""
    standardize, frames = form.module.standardize, frontend.frames(form.samples)
    new = form.step_samples // frontend.hop_length
    kept = (frames - new) * frontend.bands if new else 0
    named: dict[str, Any] = {"new": new, "kept": kept, "hop": frontend.hop_length}
    named |= {name: standardize.get_buffer(name).flatten() for name in ("mean", "std")}  # type: ignore[union-attr]
    if not isinstance(frontend, BandSpectrogram):
        return named
    n_fft = frontend.n_fft
    heard = [row.nonzero().flatten().tolist() or [0, -1] for row in frontend.weights]
    first, counts = [bins[0] for bins in heard], [bins[-1] + 1 - bins[0] for bins in heard]
    weights = [row[at : at + count] for row, at, count in zip(frontend.weights, first, counts, strict=True)]
    points = n_fft // 2 if n_fft % 2 == 0 else n_fft
    factor = _largest_factor(points)
    # Butterflies of two and four reach no further than three quarters of a turn.
    angles = -2 * np.pi * np.arange(n_fft if factor > 2 else -(-3 * n_fft // 4)) / n_fft
    return named | {
        "n_fft": n_fft,
        "win_length": frontend.win_length,
        "lead": frontend.lead,
        "overlap": form.examples[1].shape[1] - kept if new else 0,
        "window": frontend.window,
        "turns": np.stack([np.cos(angles), np.sin(angles)], 1),
        "first_bins": first,
        "bin_counts": counts,
        "bin_weights": torch.cat(weights),
        "power": frontend.power,
        "log_factor": frontend.log_factor,
        "floor": frontend.floor,
        "subtract_mean": getattr(frontend, "subtract_mean", False),
        "points": points,
        "work_floats": 4 * points,
        "largest_factor": factor,
    }


def _largest_factor(n: int) -> int:
    """The largest prime in it, at least 2."""
    factor = 2
    while n > 1:
        factor = next(p for p in range(factor, n + 1) if n % p == 0)
        n //= factor
    return factor


def number(value: float) -> str:
    """A literal that reads as the same float32."""
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if {*".e"} & {*text} else f"{text}.0f"


def literal(text: str) -> str:
    """A string literal in ASCII."""
    plain = {code for code in range(32, 127) if chr(code) not in '"\\?'}
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'


def table(kind: str, name: str, values: Any) -> str:
    """A constant array; rows of two numbers are structures."""
    array = np.asarray(values)
    words = [str(one) if array.dtype.kind == "i" else number(one) for one in array.flatten().tolist()]
    if array.ndim == 2:
        words = [f"{{{first}, {second}}}" for first, second in zip(words[::2], words[1::2], strict=True)]
    lines = [", ".join(words[i : i + 8]) for i in range(0, len(words), 8)]
    return f"static const {kind} {name}[{len(words)}] = {{\n    " + ",\n    ".join(lines) + "\n};"
