"""`tinyscene page`."""

from pathlib import Path
from typing import Annotated

import typer


def page(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder with model.json, or a name (`list models`).")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Output; the page is its index.html.")],
    title: Annotated[str | None, typer.Option(help="Shown on the page [default: the model's name].")] = None,
    clip_s: Annotated[
        float | None, typer.Option(help="Length of the clips, in seconds [default: the training clips'].")
    ] = None,
    step_s: Annotated[float, typer.Option(help="Seconds between decisions; at most half a clip.")] = 0.5,
    engine: Annotated[
        str | None,
        typer.Option(help="c (needs clang, lld and gcc) or onnx (needs npm; 20 MB) [default: the first there]."),
    ] = None,
) -> None:
    """Write a web page that listens: recordings and the microphone, with the model in it.

    One file without a server: open it, or put it anywhere. It may not use the network, so that no sound leaves the
    browser.
    """
    import tinyscene as ts
    from tinyscene.models import pretrained

    classifier = ts.from_pretrained(model)
    name = title or pretrained.located(model).resolve().name
    credits = pretrained.credits(model)
    made = ts.page(classifier, folder, title=name, credits=credits, clip_s=clip_s, step_s=step_s, engine=engine)
    typer.echo(f"{made}: {made.stat().st_size:,} B; open it in a browser")
