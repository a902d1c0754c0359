"""Systems on a list of pairs: one table with its floors and its ceiling.

An SDR improvement means little alone: half the mixture scores 3.01 dB at 0 dB, silence "improves" whatever
lies below 0 dB. So every run also scores, on the same mixtures,

- `silence`: SDR exactly 0 dB; its SI-SDR is 0 / 0 and is reported as undefined, not as some number;
- `mixture`: the unprocessed mixture, from which improvements are counted;
- `constant_gain`: the mixture times the best gain **for each item**, <x, s> / |x|^2. No gain can do better,
  fixed or not;
- `oracle_mask`: the ideal ratio mask of magnitudes, 512 / 256 samples at 16 kHz: the ceiling.

A system that makes a new waveform has another ceiling: what becomes of the target itself on the way through its VAE and
vocoder. Such systems are given as `ceilings`; they see the target, and stand below the oracle mask in every table.

Several systems are scored in one pass over the pairs; floors and ceilings are computed once. With an embedding,
everything in the table also has FAD, KL, Inception Score, CLAPScore, CLAPScore_A and log-spectral distance.

Notebooks: 05 (floors and ceilings), 08 (measuring separation).
"""

import datetime
import hashlib
import importlib.metadata
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor
from tqdm import tqdm

from lasslab.evaluation.batches import Batch, Pairs, batches, check_pairs, heading, sees_target, separate
from lasslab.evaluation.cost import Meter
from lasslab.evaluation.embedding_scores import EmbeddingReport, EmbeddingScorer
from lasslab.evaluation.metrics import best_gain, sdr, sdr_improvement, si_sdr, si_sdr_improvement
from lasslab.evaluation.provenance import device_name, git_commit
from lasslab.evaluation.report import Comparison, Report
from lasslab.evaluation.tables import FLOORS, METRICS
from lasslab.models.clap import AudioTextEmbedding
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.systems.separation import OracleMask, Separator

CEILING = OracleMask("ratio", exponent=1.0)


@overload
def evaluate(system: Separator, pairs: Pairs, **options: Any) -> Report: ...


@overload
def evaluate(system: Sequence[Separator], pairs: Pairs, **options: Any) -> Comparison: ...


def evaluate(
    system: Separator | Sequence[Separator],
    pairs: Pairs,
    *,
    snr_db: float = 0.0,
    sample_rate: int = SAMPLE_RATE,
    progress: bool = True,
    batch_size: int = 8,
    seed: int = 0,
    corpus: str | None = None,
    pair_list: str | os.PathLike[str] | None = None,
    labels: Mapping[str, str] | None = None,
    names: Sequence[str] | None = None,
    embedding: AudioTextEmbedding | None = None,
    ceilings: Sequence[Separator] = (),
) -> Report | Comparison:
    """Score a system on pairs, or several on the same ones, with floors and ceiling in the same run.

    Args:
        system: what is called on each mixture; or a sequence of such. Clips of one length run together where a system
            has `separate_batch`; see `lasslab.evaluation.batches.separate`.
        pairs: `read_pairs(...)`, mixed here as AudioSep does; or a `MixtureDataset`, mixed at its own SNRs.
        snr_db: SNR of pairs from files that have none of their own, dB.
        sample_rate: rate of the mixtures, Hz.
        progress: show a bar.
        batch_size: clips per batch.
        seed: of the bootstrap, and of a system that draws random numbers.
        corpus: what the heading calls the pairs; default the name of the pair list.
        pair_list: the CSV the pairs came from; its name and SHA-256 go into the provenance.
        labels: file name without suffix -> class, for the breakdown by class; `esc50_labels(folder)`, for example.
        names: what tables call the systems, in their order; default their own names, numbered where two are the same.
        embedding: what the metrics of `lasslab.evaluation.distances` are computed in, `load_clap("clap-lab")` for
            example; None leaves them out.
        ceilings: further systems that take `target=`, which tables show below the oracle mask.

    Returns:
        The report; of a sequence, the comparison of its reports.

    Raises:
        ValueError: there is no system or no pair, a ceiling does not take the target, or a pair cannot be read, mixed
            or separated; the message names it.

    Notebook: 08.
    """
    check_pairs(pairs, batch_size=batch_size, snr_db=snr_db)
    several = isinstance(system, Sequence)
    systems = name_systems(system if several else [system], names)
    beyond = _named_ceilings(ceilings, taken=systems)
    floor_names = [*FLOORS, *beyond]
    scores = {name: torch.empty(len(pairs), len(METRICS), dtype=torch.float64) for name in floor_names}
    own = {name: torch.empty(len(pairs), len(METRICS), dtype=torch.float64) for name in systems}
    items: list[dict[str, Any]] = [{} for _ in range(len(pairs))]
    timed = {system_key(name): each for name, each in systems.items()} | {"oracle_mask": CEILING} | beyond
    meters = {name: Meter(device_of(each), batch_size) for name, each in timed.items()}
    scorer = None
    if embedding is not None:
        every = [*map(system_key, systems), *floor_names]
        scorer = EmbeddingScorer(embedding, n=len(pairs), names=every, sample_rate=sample_rate)
    audio = 0.0
    with tqdm(total=len(pairs), disable=not progress, leave=False, unit="pair") as bar:
        for batch in batches(pairs, batch_size=batch_size, snr_db=snr_db, sample_rate=sample_rate, labels=labels):
            ask_for = partial(separate, batch=batch, sample_rate=sample_rate, seed=seed)
            answers = metered(meters, timed, ask_for, n_clips=len(batch.numbers))
            floors = _floors(batch) | {name: answers[name] for name in ("oracle_mask", *beyond)}
            for name in systems:
                own[name][batch.numbers] = score(answers[system_key(name)], batch)
            for name, estimates in floors.items():
                scores[name][batch.numbers] = score(estimates, batch)
            for number, item in zip(batch.numbers, batch.items, strict=True):
                items[number] = item
            if scorer is not None:
                try:
                    scorer.add(batch.numbers, batch.queries, batch.mixture.target, answers | floors)
                except ValueError as error:
                    raise ValueError(f"{batch.names}: {error}") from error
            audio += batch.mixture.mixture.numel() / sample_rate
            bar.update(len(batch.numbers))
    judged = scorer.scores(seed=seed) if scorer is not None else {}
    words = heading(items, corpus, pair_list, snr_db)
    reports = []
    for name, each in systems.items():
        key = system_key(name)
        made = provenance(each, seed=seed, pair_list=pair_list) | {"snr_db": snr_db, "sample_rate": sample_rate}
        made |= {
            "constant_gain": "best gain for each item",
            "oracle_mask": f"ratio mask, exponent {CEILING.exponent:g}, {CEILING.n_fft} / {CEILING.hop_length}",
        }
        made |= sampling_settings(each)
        made |= {"seconds": round(meters[key].total, 2), "audio_seconds": round(audio, 2)}
        part = None
        if scorer is not None:
            part = EmbeddingReport(scorer.about(), judged[key], {floor: judged[floor] for floor in floor_names})
        costs = {"cost": meters[key].to_json()}
        costs["floor_costs"] = {floor: meters[floor].to_json() for floor in ("oracle_mask", *beyond)}
        reports.append(Report(name, own[name], scores, items, words, made, embedding=part, **costs))
    return Comparison(tuple(reports)) if several else reports[0]


def system_key(name: str) -> str:
    """A system's key beside those of the floors: the system "mixture" is not the floor "mixture"."""
    return f"system: {name}"


def metered(
    meters: Mapping[str, Meter], systems: Mapping[str, Any], ask: Callable[[Any], Tensor], *, n_clips: int
) -> dict[str, Tensor]:
    """What each system answers to a batch of `n_clips` clips, each call under its own meter."""
    return {name: meters[name].run(lambda each=each: ask(each), n_clips=n_clips) for name, each in systems.items()}


def sampling_settings(system: Any) -> dict[str, Any]:
    """How a system samples, of what it has: steps, guidance, where it starts."""
    names = getattr(system, "settings", ("n_steps", "guidance_scale"))
    return {name: getattr(system, name) for name in names if hasattr(system, name)}


def device_of(system: Any) -> torch.device:
    """Where a system computes; the CPU where it does not say."""
    return torch.device(getattr(system, "device", "cpu"))


def _named_ceilings(ceilings: Sequence[Separator], *, taken: Mapping[str, Any]) -> dict[str, Separator]:
    if not ceilings:
        return {}
    for each in ceilings:
        if not sees_target(each):
            raise ValueError(f"{each.name} takes no target=, so that it is no ceiling: evaluate it as a system")
    named = name_systems(ceilings, None)
    if twice := [name for name in named if name in taken or name in FLOORS]:
        raise ValueError(f"a ceiling is called {twice[0]}, as another row of the table: give it another name")
    return named


def name_systems(systems: Sequence[Separator], names: Sequence[str] | None) -> dict[str, Separator]:
    """Name systems.

    Args:
        systems: at least one.
        names: what to call them, in their order; None for their own names, of which one that comes back is numbered.

    Returns:
        Name -> system.

    Raises:
        ValueError: there is no system, or not one name for each.
    """
    if not systems:
        raise ValueError("there is no system to evaluate: give at least one")
    if names is not None and (len(names) != len(systems) or len(set(names)) != len(names)):
        raise ValueError(f"expected {len(systems)} different names, one for each system, got {list(names)}")
    named: dict[str, Separator] = {}
    for system, name in zip(systems, names or [each.name for each in systems], strict=True):
        number = 2
        unique = name
        while unique in named:
            unique, number = f"{name} ({number})", number + 1
        named[unique] = system
    return named


def _floors(batch: Batch) -> dict[str, Tensor]:
    """Estimates (B, T) of the floors."""
    mixture, target, _ = batch.mixture
    return {
        "silence": torch.zeros_like(mixture),
        "mixture": mixture,
        "constant_gain": best_gain(estimate=mixture, target=target)[:, None] * mixture.double(),
    }


def score(estimates: Tensor, batch: Batch) -> Tensor:
    """The four metrics of estimates.

    Args:
        estimates: (B, T).
        batch: the mixtures they were made from.

    Returns:
        Scores in dB, (B, 4), columns as in `METRICS`.

    Raises:
        ValueError: an estimate has another shape or unusable samples, or a target is silent; names the pairs.
    """
    mixture, target, _ = batch.mixture
    try:
        columns = [
            sdr(estimate=estimates, target=target),
            sdr_improvement(estimate=estimates, target=target, mixture=mixture),
            si_sdr(estimate=estimates, target=target),
            si_sdr_improvement(estimate=estimates, target=target, mixture=mixture),
        ]
    except ValueError as error:
        raise ValueError(f"{batch.names}: {error}") from error
    return torch.stack(columns, dim=-1)


def provenance(
    system: Any, *, seed: int, pair_list: str | os.PathLike[str] | None, key: str = "pair_list"
) -> dict[str, Any]:
    """Where figures come from: date, versions, commit, device, seed, and the list with its SHA-256.

    Args:
        system: whose device is named.
        seed: what the run was given.
        pair_list: the CSV of the items, or None.
        key: under which the list stands.

    Returns:
        JSON values.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "lasslab": _version(),
        "commit": git_commit(),
        "torch": str(torch.__version__),
        "device": device_name(getattr(system, "device", "cpu")),
        "seed": seed,
        key: None if pair_list is None else Path(pair_list).name,
        f"{key}_sha256": None if pair_list is None else hashlib.sha256(Path(pair_list).read_bytes()).hexdigest(),
    }


def _version() -> str | None:
    try:
        return importlib.metadata.version("lasslab")
    except importlib.metadata.PackageNotFoundError:
        return None
