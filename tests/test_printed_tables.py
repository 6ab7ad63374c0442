"""Tables for the terminal and as Markdown."""

from rich.console import Console

from tinyscene.tables import APART, markdown, table

ROWS = [
    {"name": "qat8_calib_multinomial", "accuracy %": "91.2", "size": "115,078 bn2", "95 %": "-1.2 (-9.3 ... +6.4) *"},
    APART,
    {"name": "[red] in brackets", "accuracy %": "7.5", "size": "-", "note": "two words"},
]


def printed(width: int) -> list[str]:
    with (console := Console(width=width)).capture() as text:
        console.print(table("title [bold]", ROWS))
    return text.get().splitlines()


def cells(line: str) -> list[str]:
    return line.strip("│┃").replace("┃", "│").split("│")


def test_figures_stand_right_and_text_left() -> None:
    lines = printed(120)
    assert "title [bold]" in lines[0]
    heads, _, second = (cells(line) for line in lines if line[:1] in "┃│")
    assert [head.strip() for head in heads] == ["name", "accuracy %", "size", "95 %", "note"]
    assert [cell.strip() for cell in second] == ["[red] in brackets", "7.5", "-", "", "two words"]
    assert second[0].startswith(" [red]")
    for place in (1, 2):
        assert second[place] == second[place].strip().rjust(len(second[place]) - 1) + " "
    assert any(line.startswith("├") for line in lines), "apart"


def test_where_there_is_no_room_text_folds_and_figures_do_not() -> None:
    lines = printed(62)
    assert "91.2" in "".join(lines)
    assert any("-1.2 (-9.3 ... +6.4) *" in line for line in lines)
    assert any("115,078 bn2" in line for line in lines)
    names = "".join(cells(line)[0].strip() for line in lines if line.startswith("│"))
    assert names.startswith("qat8_calib_multinomial")
    assert max(map(len, lines)) <= 62


def test_markdown_has_a_cell_under_every_heading() -> None:
    assert markdown(ROWS) == [
        "| name | accuracy % | size | 95 % | note |",
        "|---|---|---|---|---|",
        "| qat8_calib_multinomial | 91.2 | 115,078 bn2 | -1.2 (-9.3 ... +6.4) * |  |",
        "| [red] in brackets | 7.5 | - |  | two words |",
    ]
