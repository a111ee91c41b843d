"""The syntax of strongswan.conf(5)."""

from pathlib import Path

import pytest

from gateway.config.foreign.sections import Section, read_sections
from gateway.config.foreign.statement import ForeignConfigError, Notes


def read(folder: Path, text: str, **files: str) -> Section:
    for name, contents in files.items():
        path = folder / "conf.d" / f"{name}.conf"
        path.parent.mkdir(exist_ok=True)
        path.write_text(contents)
    (folder / "swanctl.conf").write_text(text)
    return read_sections(folder / "swanctl.conf", Notes())


def values(section: Section) -> dict[str, str]:
    return {key: setting.value for key, setting in section.settings.items()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a { key = one two }", "one two"),
        ("a { key = one   two\n}", "one two"),
        ("a {\n key = one # a comment\n}", "one"),
        ('a { key = "one # two } three" }', "one # two } three"),
        ('a { key = "a \\"quoted\\" word\\n" }', 'a "quoted" word\n'),
        ('a { key = "over \\\nlines" }', "over lines"),
        ("a\n{\nkey=x=y{z\n}", "x=y{z"),
        ("a { key = C=CH, O=Test }", "C=CH, O=Test"),
        ("a { key = first\n }\na { key = second\n }", "second"),
    ],
)
def test_values(tmp_path: Path, text: str, value: str) -> None:
    assert values(read(tmp_path, text).section("a")) == {"key": value}


def test_an_empty_value_is_no_value(tmp_path: Path) -> None:
    assert values(read(tmp_path, "a {\n key =\n other = 1\n}").section("a")) == {"other": "1"}


def test_settings_know_their_file_and_line(tmp_path: Path) -> None:
    root = read(tmp_path, "# first\ninclude conf.d/*.conf\n", x="\n\na {\n key = 1\n}")

    place = root.section("a").settings["key"].place
    assert (place.file, place.line) == (str(tmp_path / "conf.d/x.conf"), 4)


def test_includes_stand_anywhere_and_are_sorted(tmp_path: Path) -> None:
    root = read(tmp_path, "a {\n include conf.d/*.conf\n}", y="key = 2\n", x="key = 1\n only = x\n")

    assert values(root.section("a")) == {"key": "2", "only": "x"}


def test_sections_inherit_what_they_refer_to(tmp_path: Path) -> None:
    root = read(
        tmp_path,
        "base {\n key = 1\n other = 2\n gone = 3\n below { x = 1\n y = 1\n }\n}\n"
        "a : base {\n key = own\n gone =\n below { x = own\n }\n}\nb : a { }\n",
    )

    for name in ("a", "b"):
        section = root.section(name)
        assert values(section) == {"key": "own", "other": "2"}
        assert values(section.section("below")) == {"x": "own", "y": "1"}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a {\n key = 1\n", "is not closed"),
        ("}", "closes nothing"),
        ("a {\n key\n}", "is expected after key"),
        ('a {\n key = "open\n}', "is not closed"),
        ("a : b { }\nb : a { }\n", "refers to itself"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(ForeignConfigError, match=what) as error:
        read(tmp_path, text)
    assert str(tmp_path / "swanctl.conf") in str(error.value)


def test_includes_end_somewhere(tmp_path: Path) -> None:
    notes = Notes()
    (tmp_path / "a.conf").write_text("include a.conf\n")

    read_sections(tmp_path / "a.conf", notes)

    assert ["nested more than 10" in note.text for note in notes] == [True]
