"""Tables of a Markdown file: made from reports, the rest of the file untouched, broken files refused."""

import json

import pytest
import torch

from lasslab.evaluation.readme import fill_tables, main
from lasslab.evaluation.report import Comparison, Report
from lasslab.evaluation.tables import FLOORS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = """\
# Title

Before.

<!-- table: fold4 -->
stale | table
<!-- end table -->

After, and an example that is no table:

```
<!-- table: NAME -->
<!-- end table -->
```
"""
FILLED = """\
# Title

Before.

<!-- table: fold4 -->

2 pairs of hand, mixed at 0 dB SNR; means in dB.

|  | SDR | SDRi | SI-SDR | SI-SDRi |
| --- | ---: | ---: | ---: | ---: |
| silence | 0.00 | 0.00 | – | – |
| mixture | 0.00 | 0.00 | 0.00 | 0.00 |
| mixture x best gain | 3.00 | 3.00 | 3.00 | 3.00 |
| **good** | **8.00** | **8.00** | **8.00** | **8.00** |
| 95% interval of mean | [8.00, 8.00] | [8.00, 8.00] | [8.00, 8.00] | [8.00, 8.00] |
| oracle ratio mask | 20.00 | 20.00 | 20.00 | 20.00 |

– : undefined; the SI-SDR of silence is 0 / 0.

Measured 2026-01-02 at commit 0123456789-modified on cpu, 2 cores, x86_64.

<!-- end table -->

After, and an example that is no table:

```
<!-- table: NAME -->
<!-- end table -->
```
"""


def make_report(system: str, sdri: float) -> Report:
    floors = {name: torch.zeros(2, 4, dtype=torch.float64) for name in FLOORS}
    floors["silence"][:, 2:] = torch.nan
    floors["constant_gain"] += 3
    floors["oracle_mask"] += 20
    items = [{"idx": str(n), "caption": label, "label": label} for n, label in enumerate(("dog", "rain"))]
    made = {"seed": 0, "commit": f"{COMMIT}-modified", "device": "cpu, 2 cores, x86_64"}
    scores = torch.full((2, 4), sdri, dtype=torch.float64)
    heading = "2 pairs of hand, mixed at 0 dB SNR; means in dB"
    return Report(system, scores, floors, items, heading, made | {"date": "2026-01-02T03:04:05+00:00"})


@pytest.fixture
def reports(tmp_path):
    folder = tmp_path / "reports"
    folder.mkdir()
    make_report("good", 8).save(folder / "fold4.json")
    Comparison((make_report("good", 8), make_report("fair", 6))).save(folder / "two.json")
    Comparison((make_report("good", 7), make_report("other", 5))).save(folder / "filtered.json")
    return folder


def table(reports, words: str) -> list[str]:
    text, _ = fill_tables(f"<!-- table: {words} -->\n<!-- end table -->\n", reports)
    return text.splitlines()


def test_the_table_is_replaced_and_nothing_else(reports):
    filled, count = fill_tables(FILE, reports)
    assert (filled, count) == (FILLED, 1)
    assert fill_tables(filled, reports) == (filled, 1), "made again, it is the same"


def test_views(reports):
    assert "| good - fair | 2.00 | [2.00, 2.00] | 2.00 | [2.00, 2.00] | 100 % |" in table(reports, "two, differences")
    by_class = table(reports, "two, by class")
    assert "| dog | 1 | 8.00 | 6.00 | 20.00 |" in by_class and "SDRi by class of the target:" in by_class
    beside = table(reports, "two filtered")
    columns = [f"{name}: {metric}" for name in ("two", "filtered") for metric in ("SDR", "SDRi", "SI-SDR")]
    assert f"|  | {' | '.join(columns)} |" in beside
    assert "| mixture x best gain | 3.00 | 3.00 | 3.00 | 3.00 | 3.00 | 3.00 |" in beside
    assert f"| **good** | {' | '.join(['**8.00**'] * 3 + ['**7.00**'] * 3)} |" in beside
    assert f"| **fair** | {' | '.join(['**6.00**'] * 3 + ['**–**'] * 3)} |" in beside


@pytest.mark.parametrize(
    "text, words",
    [
        ("nothing here\n", "F has no table"),
        ("a\n<!-- table: fold4 -->\nb\n", "F, line 2: .*not closed"),
        ("<!-- table: fold4 -->\n<!-- table: two -->\n<!-- end table -->\n", "F, line 2: .*line 1"),
        ("<!-- end table -->\n", "F, line 1: .*before it"),
        ("<!-- table: fold5 -->\n<!-- end table -->\n", r"F, line 1: .*fold5\.json.*there: filtered, fold4, two"),
        ("<!-- table: fold4, by colour -->\n<!-- end table -->\n", "unknown view 'by colour'"),
        ("<!-- table: fold4, by snr -->\n<!-- end table -->\n", "no breakdown by snr"),
        ("<!-- table: fold4, differences -->\n<!-- end table -->\n", "differences need two"),
        ("<!-- table: fold4 two, by class -->\n<!-- end table -->\n", "shows one report"),
    ],
)
def test_what_cannot_be_filled(reports, text, words):
    with pytest.raises(ValueError, match=words) as error:
        fill_tables(text, reports, where="F")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"reports": []}', '{"reports": [3]}', '{"floors": {}}'])
def test_a_file_that_is_no_report(reports, content):
    (reports / "broken.json").write_text(content)
    with pytest.raises(ValueError, match=r"broken\.json is no"):
        table(reports, "broken")


def test_the_command(reports, tmp_path, capsys):
    path = tmp_path / "README.md"
    path.write_text(FILE, encoding="utf-8")
    arguments = [str(path), "--reports", str(reports)]
    assert main([*arguments, "--check"]) == 1 and path.read_text(encoding="utf-8") == FILE
    assert main(arguments) == 0 and path.read_text(encoding="utf-8") == FILLED
    assert main([*arguments, "--check"]) == 0
    assert "up to date" in capsys.readouterr().out
    (reports / "fold4.json").unlink()
    assert main(arguments) == 2 and path.read_text(encoding="utf-8") == FILLED, "nothing is lost"
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main([str(tmp_path / "none.md"), "--reports", str(reports)]) == 2
    assert sorted(tmp_path.iterdir()) == [path, reports]


def test_wording_reports_have_a_row_for_each_system(reports):
    answers = {"n": 4, "share_below": 0.75, "median_db": -14.0, "p5_db": -30.0, "p95_db": -5.0, "by_class": []}
    loss = {
        "n": 2,
        "caption": {"sdri": 8.0},
        "paraphrase": {"sdri": 7.0},
        "loss": {"mean": 1.0, "interval": [0.5, 1.5]},
    }
    free = loss | {"undefined": 0, "by_class": [{"name": "dog"} | loss]}
    wordings = [{"class": "dog", "wording": "a canine", "n": 2, "loss": 1.0}]
    report = {
        "heading": "2 pairs of hand, mixed at 0 dB SNR; means in dB",
        "threshold_db": -10.0,
        "paraphrases": free | {"by_wording": wordings},
        "absence": answers | {"share_lowest": 1.0},
        "presence": answers | {"share_below": 0.0, "median_db": -3.0, "median_kept_db": -1.0},
        "provenance": {"date": "2026-01-02T03:04:05", "commit": None, "device": "cpu"},
    }
    (reports / "w1.json").write_text(json.dumps(report | {"system": "one"}))
    (reports / "w2.json").write_text(json.dumps({"reports": [report | {"system": name} for name in ("two", "three")]}))
    found = table(reports, "w1 w2")
    rows = [line for line in found if line.startswith("| ")][2:]
    assert rows == [
        f"| {name} | 8.00 | 7.00 | 1.00 | [0.50, 1.50] | 75 % | -14.0 | 0 % | -3.0 |"
        for name in ("one", "two", "three")
    ]
    assert any("1 wordings of 1 classes" in line for line in found)
    assert "Measured 2026-01-02 at commit unknown on cpu." in found
    assert "| dog | 2 | 8.00 | 7.00 | 1.00 | [0.50, 1.50] |" in table(reports, "w1, by class")
    with pytest.raises(ValueError, match="different kinds"):
        table(reports, "w1 fold4")
    with pytest.raises(ValueError, match="no such table"):
        table(reports, "w1, differences")
