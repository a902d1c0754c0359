"""Tables against text written by hand, from reports whose every figure is known."""

import pytest
import torch

from lasslab.evaluation.breakdown import by_class, by_snr, check_kinds, esc50_labels
from lasslab.evaluation.report import Comparison, Report
from lasslab.evaluation.tables import FLOORS, Table, decimals, short_names

LEVELS = (-10.0, 0.0, 10.0, 0.0)


def make_report(system: str, sdri: float | list[float], labels=("dog", "rain", "dog", "rain"), **item) -> Report:
    """Four items whose SDR is their SDRi, whose SI-SDR is 1 dB below; floors of 0, ceiling of 20 dB."""
    sdri = torch.tensor([sdri] * 4 if isinstance(sdri, int | float) else sdri, dtype=torch.float64)
    scores = torch.stack([sdri, sdri, sdri - 1, sdri - 1], dim=-1)
    floors = {name: torch.zeros(4, 4, dtype=torch.float64) for name in FLOORS}
    floors["silence"][:, 2:] = torch.nan
    floors["oracle_mask"] += 20
    items = [{"idx": str(i), "caption": f"a {label}", "label": label} | item for i, label in enumerate(labels)]
    made = {"seed": 0, "commit": None, "device": "cpu", "date": "2026-01-02T03:04:05+00:00"}
    return Report(system, scores, floors, items, "4 pairs of hand, mixed at 0 dB SNR; means in dB", made)


GOLDEN = """\
4 pairs of hand, mixed at 0 dB SNR; means in dB
                                   SDR            SDRi        SI-SDR       SI-SDRi
silence                           0.00            0.00             –             –
mixture                           0.00            0.00          0.00          0.00
mixture x best gain               0.00            0.00          0.00          0.00
good                             10.00           10.00          9.00          9.00
  std over pairs                  0.00            0.00          0.00          0.00
  95% interval of mean  [10.00, 10.00]  [10.00, 10.00]  [9.00, 9.00]  [9.00, 9.00]
fair                              9.00            9.00          8.00          8.00
  std over pairs                  1.41            1.41          1.41          1.41
  95% interval of mean   [8.00, 10.25]   [8.00, 10.25]  [7.00, 9.25]  [7.00, 9.25]
oracle ratio mask                20.00           20.00         20.00         20.00
– : undefined; the SI-SDR of silence is 0 / 0.

paired difference  SDRi   95% interval  SI-SDR   95% interval  first better
good - fair        1.00  [-0.25, 2.00]    1.00  [-0.25, 2.00]          75 %

SDRi by class of the target
      n   good   fair  oracle
dog   2  10.00  10.00   20.00
rain  2  10.00   8.00   20.00
all   4  10.00   9.00   20.00

SI-SDR by class of the target
      n  good  fair  oracle
dog   2  9.00  9.00   20.00
rain  2  9.00  7.00   20.00
all   4  9.00  8.00   20.00

No breakdown by SNR: all pairs have one."""

GOLDEN_MARKDOWN = """\
4 pairs of hand, mixed at 0 dB SNR; means in dB

|  | SDR | SDRi | SI-SDR | SI-SDRi |
| --- | ---: | ---: | ---: | ---: |
| silence | 0.00 | 0.00 | – | – |
| mixture | 0.00 | 0.00 | 0.00 | 0.00 |
| mixture x best gain | 0.00 | 0.00 | 0.00 | 0.00 |
| **fair** | **9.00** | **9.00** | **8.00** | **8.00** |
| 95% interval of mean | [8.00, 10.25] | [8.00, 10.25] | [7.00, 9.25] | [7.00, 9.25] |
| oracle ratio mask | 20.00 | 20.00 | 20.00 | 20.00 |

– : undefined; the SI-SDR of silence is 0 / 0.

By class of the target, means in dB

|  | n | SDRi | 95% interval | SI-SDR | 95% interval | oracle SDRi |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| dog | 2 | 10.00 | [9.00, 11.00] | 9.00 | [8.00, 10.00] | 20.00 |
| rain | 2 | 8.00 | [8.00, 8.00] | 7.00 | [7.00, 7.00] | 20.00 |
| all | 4 | 9.00 | [8.00, 10.25] | 8.00 | [7.00, 9.25] | 20.00 |"""


def comparison() -> Comparison:
    return Comparison((make_report("good", 10), make_report("fair", [9, 8, 11, 8])))


def test_several_systems_stand_between_one_set_of_floors():
    assert comparison().table(by=("class", "snr")) == GOLDEN


def test_markdown_of_one_system():
    assert make_report("fair", [9, 8, 11, 8]).table(markdown=True, by=("class",)) == GOLDEN_MARKDOWN


def test_differences_are_paired():
    """Both systems swing by 20 dB from pair to pair; their difference is 1 dB on every pair."""
    a = make_report("a", [-9, 11, -9, 11])
    b = make_report("b", [-10, 10, -10, 10])
    (found,) = Comparison((a, b)).differences
    assert found["systems"] == ["a", "b"]
    assert found["mean"]["sdri"] == 1 and found["interval"]["sdri"] == [1, 1]
    assert found["better"] == {"sdri": 1, "si_sdr": 1} and found["n"] == {"sdri": 4, "si_sdr": 4}
    low, high = a.interval["sdri"]
    assert high - low > 10


def test_a_difference_leaves_out_what_either_system_has_not():
    a, b = make_report("a", [1, 2, 3, 4]), make_report("b", [1, 1, 1, 1])
    a.scores[0] = torch.inf
    b.scores[1, 2] = torch.nan
    (found,) = Comparison((a, b)).differences
    assert found["n"] == {"sdri": 3, "si_sdr": 2}
    assert found["mean"] == {"sdri": pytest.approx((1 + 2 + 3) / 3), "si_sdr": pytest.approx((2 + 3) / 2)}
    b.scores[:] = torch.nan
    (nothing,) = Comparison((a, b)).differences
    assert nothing["mean"]["sdri"] is None and nothing["interval"]["sdri"] is None and nothing["better"]["sdri"] is None
    assert "–" in Comparison((a, b)).table()


def test_a_tie_is_half_a_win_and_every_two_systems_are_compared():
    reports = [make_report(name, sdri) for name, sdri in (("a", 1), ("b", 1), ("c", 0))]
    found = Comparison(tuple(reports)).differences
    assert [each["systems"] for each in found] == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert [each["better"]["sdri"] for each in found] == [0.5, 1, 1]


@pytest.mark.parametrize("n_systems", [1, 2, 5, 7])
def test_no_line_is_wider_than_100_columns(n_systems):
    label = "a very long caption of a sound that nobody would type"
    reports = [
        make_report(f"experiment-of-a-long-name-number-{n}-at-step-{1000 * n}", [-100 - n, 20, 3, 4], (label, "b") * 2)
        for n in range(n_systems)
    ]
    for number, report in enumerate(reports):
        for item, level in zip(report.items, LEVELS, strict=True):
            item["snr_db"] = level
        assert max(map(len, report.table(by=("class", "snr")).splitlines())) <= 100, number
    text = Comparison(tuple(reports)).table(by=("class", "snr")) if n_systems > 1 else reports[0].table(by=("class",))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" in text and "10 dB" in text or n_systems == 1


def test_names_that_are_cut_stay_different():
    assert short_names(["short", "a-rather-long-name"], 9) == ["short", "a-ra…name"]
    assert short_names(["prefix-a-suffix", "prefix-b-suffix"], 9) == ["1:pre…fix", "2:pre…fix"]


def test_markdown_escapes_bars_and_cells_round():
    assert Table(("", "a|b"), (("x|y", "1"),)).markdown().splitlines()[2] == r"| x\|y | 1 |"
    assert [decimals(x) for x in (None, float("nan"), float("inf"), -0.001, 2.345)] == ["–", "–", "–", "0.00", "2.35"]


# --- breakdowns


def items(*captions: str, **columns) -> list[dict]:
    return [{"caption": c} | {key: values[i] for key, values in columns.items()} for i, c in enumerate(captions)]


def test_the_label_is_the_class_where_every_item_has_one():
    found = by_class(items("a", "b", "c", label=["x", "y", "x"]))
    assert found.key == "label" and found.groups == {"x": [0, 2], "y": [1]}


def test_captions_are_the_class_only_where_they_come_back():
    found = by_class(items("A dog!", "rain", "a dog", "rain"))
    assert found.key == "caption" and "names no classes" in found.title
    assert found.groups == {"a dog": [0, 2], "rain": [1, 3]}
    assert by_class(items("one sentence", "another", "a third", "rain")) is None
    assert by_class(items("a dog", "a dog")) is None, "one group is no breakdown"
    partly = items("a dog", "a dog", "rain", "rain")
    partly[0]["label"] = "dog"
    assert by_class(partly).key == "caption", "a label for some is a label for none"


def test_snr_groups():
    few = by_snr(items(*"abcd", snr_db=[5.0, -5.0, 5.0, 0.0]))
    assert few.groups == {"-5 dB": [1], "0 dB": [3], "5 dB": [0, 2]}
    levels = [-15.0, -14.9, -10.0, -5.1, 0.0, 4.999, 5.0, 9.0, 14.0, 15.0]
    many = by_snr(items(*"abcdefghij", snr_db=levels))
    assert many.groups == {
        "-15 to -10 dB": [0, 1],
        "-10 to -5 dB": [2, 3],
        "0 to 5 dB": [4, 5],
        "5 to 10 dB": [6, 7],
        "10 to 15 dB": [8, 9],
    }
    assert by_snr(items("a", "b")) is None and by_snr(items("a", "b", snr_db=[3.0, 3.0])) is None


def test_breakdown_in_the_report_averages_its_group():
    report = make_report("s", [1, 2, 3, 6])
    found = report.to_json()["breakdown"]
    assert found["snr"] is None and found["class"]["key"] == "label"
    dog, rain = found["class"]["groups"]
    assert (dog["name"], dog["n"], dog["mean"]["sdri"], dog["mean"]["si_sdr"]) == ("dog", 2, 2, 1)
    assert rain["mean"]["sdri"] == 4 and rain["interval"]["sdri"] == [2, 6] and rain["oracle_mask"]["sdri"] == 20


def test_unknown_breakdown():
    check_kinds(["class", "snr"])
    with pytest.raises(ValueError, match="unknown breakdown 'colour': choose class or snr"):
        make_report("s", 1).table(by=("colour",))


def test_labels_of_an_esc50_folder(tmp_path):
    assert esc50_labels(tmp_path) == {}
    (tmp_path / "meta").mkdir()
    (tmp_path / "audio").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text("filename,fold,category\n1-1-A-0.wav,1,dog\n1-2-A-10.wav,1,rain\n")
    expected = {"1-1-A-0": "dog", "1-2-A-10": "rain"}
    assert esc50_labels(tmp_path / "audio") == expected == esc50_labels(tmp_path)
