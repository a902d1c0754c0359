"""No figure in the README's tables is typed: they are what the committed reports say."""

from pathlib import Path

from lasslab.evaluation.readme import fill_tables

ROOT = Path(__file__).parents[2]


def test_the_tables_are_up_to_date():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    filled, count = fill_tables(text, ROOT / "data" / "reports")
    assert filled == text, "run `make tables`"
    assert count >= 4


def test_no_placeholder_is_left():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [line for line in text.splitlines() if line.startswith("@") or "@." in line]
