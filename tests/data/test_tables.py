"""Tables of clips: what is read, and what is refused with its row."""

import pytest

from tinyscene.data.tables import read_table, seconds
from tinyscene.errors import InputError

EXPECTED = [
    ("list.csv:2", {"filename": "audio/ä one.wav", "scene_label": "park"}),
    ("list.csv:4", {"filename": "audio/two.wav", "scene_label": "bus"}),
]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"\xff\xfe"], ids=["plain", "BOM", "UTF-16"])
@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("last", ["", "end"])
def test_line_ends_mark_and_separator_change_nothing(tmp_path, end, mark, separator, last):
    lines = ["filename,scene_label", "audio/ä one.wav,park", "", "audio/two.wav, bus "]
    text = end.join(lines).replace(",", separator) + (end if last else "")
    (tmp_path / "list.csv").write_bytes(mark + text.encode("utf-16-le" if mark == b"\xff\xfe" else "utf-8"))
    assert [tuple(row) for row in read_table(tmp_path / "list.csv", ["filename", "scene_label"])] == EXPECTED


def test_headers_and_empty_columns_as_a_spreadsheet_saves_them(tmp_path):
    (tmp_path / "list.csv").write_text("Filename;Scene_Label;;\naudio/ä one.wav;park;;\n;;;\naudio/two.wav;bus;;\n")
    assert [tuple(row) for row in read_table(tmp_path / "list.csv", ["filename", "scene_label"])] == EXPECTED
    (tmp_path / "list.csv").write_text("Filename;Label;;\na.wav;park;;\nb.wav;bus;x;\n")
    with pytest.raises(InputError, match=r"list.csv:3: 4 cells; accepted: 2, as in the header \(filename, label\)"):
        read_table(tmp_path / "list.csv", ["filename"])


def test_quoted_commas_and_backslashes(tmp_path):
    (tmp_path / "list.csv").write_text('filename,label\n"audio\\a, b.wav",park\n./c//d.wav,bus\n')
    rows = read_table(tmp_path / "list.csv", ["label"])
    assert [row.cells["filename"] for row in rows] == ["audio/a, b.wav", "c/d.wav"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"filename,label\n", "without rows"),
        (b"file,scene\na.wav,park\n", r"list.csv:1: no column filename, label; found: file, scene"),
        (b"filename,label,label\na.wav,park,bus\n", "label is a duplicate"),
        (b"filename,label\na.wav,park\nb.wav\n", r"list.csv:3: 1 cells; accepted: 2"),
        (b"filename,label\na.wav,park,bus\n", r"list.csv:2: 3 cells"),
        (b"filename,label\na.wav,park\nb.wav,bus\na.wav,bus\n", r"list.csv:4: a.wav duplicates list.csv:2"),
        (b"filename,label\na.wav,park\n./a.wav,bus\n", r"list.csv:3: a.wav duplicates"),
        (b"filename,label\n/etc/passwd,park\n", r"list.csv:2: filename '/etc/passwd'"),
        (b"filename,label\na.wav,park\n../a.wav,park\n", r"list.csv:3: filename '../a.wav'"),
        (b"filename,label\nb/../../a.wav,park\n", "stays inside it"),
        (b"filename,label\nb\\..\\..\\a.wav,park\n", "stays inside it"),
        (b"filename,label\nC:\\a.wav,park\n", "stays inside it"),
        (b"filename,label\n,park\n", r"list.csv:2: filename ''"),
        (b"filename,label\n\xff\xfe.wav,park\n", "UTF-8"),
        (b'filename,label\na.wav,park\n"b.wav,bus\n', r"list.csv:3: "),
    ],
)
def test_refused_with_file_and_row(tmp_path, text, said):
    (tmp_path / "list.csv").write_bytes(text)
    with pytest.raises(InputError, match=said):
        read_table(tmp_path / "list.csv", ["filename", "label"])


def test_no_table(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "list.csv", ["filename"])
    with pytest.raises(InputError, match="a folder"):
        read_table(tmp_path, ["filename"])


def test_stretches_of_one_file_are_no_repeats(tmp_path):
    (tmp_path / "list.csv").write_text("filename,start_s\na.wav,0\na.wav,1.5\nb.wav,\n")
    rows = read_table(tmp_path / "list.csv", ["filename"], unique=("filename", "start_s", "duration_s"))
    assert [seconds(row, "start_s") for row in rows] == [0.0, 1.5, None]
    assert seconds(rows[0], "duration_s") is None


@pytest.mark.parametrize("cell", ["-1", "nan", "inf", "long"])
def test_seconds_are_finite_and_not_negative(tmp_path, cell):
    (tmp_path / "list.csv").write_text(f"filename,start_s\na.wav,{cell}\n")
    (row,) = read_table(tmp_path / "list.csv", ["filename"])
    with pytest.raises(InputError, match=rf"list.csv:2: start_s '{cell}'"):
        seconds(row, "start_s")
