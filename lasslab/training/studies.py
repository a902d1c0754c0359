"""Small fair experiments: networks that differ in one thing, trained alike, scored on the same held-out mixtures.

    python -m lasslab.training.studies filter -o data/reports
    python -m lasslab.training.studies conditioning -o data/reports

writes reports that `lasslab.evaluation.readme` makes tables of.

`filter` asks what the cosine filter does to training, and what to the test; `conditioning` what the words are worth,
and which way of reading them. Each variant has the same network size, loss, number of mixtures, steps and seed; what is
scored is the last step's moving average, so that nothing is chosen on the test. Trainings are kept in the folder and
are not run twice.

Notebooks: 04 (the filter), 07 (cross-attention, FiLM, no text).
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lasslab.data.corpora import load_corpus
from lasslab.data.mixtures import MixtureDataset
from lasslab.evaluation.benchmark import evaluate
from lasslab.signal.files import write_json
from lasslab.systems.separation import load_separator
from lasslab.training.fit import STATE_FILE
from lasslab.training.masking import MaskingRecipe, train_masking
from lasslab.training.runs import change_recipe

#: one network of `quick` size, long enough to separate ten classes; validated once, at its end
BASE = MaskingRecipe(
    size="quick",
    corpus="esc50",
    seconds=1.264,
    n_steps=400,
    learning_rate=2e-3,
    warmup_steps=40,
    ema_decay=0.99,
    validate_every=0,
    save_every=200,
    picture_every=0,
    n_validation=32,
)


@dataclass(frozen=True)
class Study:
    """Variants of one recipe and the lists they are scored on.

    Args:
        title: the question.
        variants: name in the table -> settings that differ from `BASE`.
        lists: name of the report -> settings of the held-out `MixtureDataset`.
        folds: ESC-50 folds of the held-out mixtures.
        n: mixtures in each list.
    """

    title: str
    variants: Mapping[str, Mapping[str, Any]]
    lists: Mapping[str, Mapping[str, Any]]
    folds: tuple[int, ...] = (4,)
    n: int = 256
    base: MaskingRecipe = field(default=BASE)


STUDIES: dict[str, Study] = {
    "filter": Study(
        title="What the cosine filter does to training, and what to the test",
        variants={
            "trained without filter": {},
            "trained on cosine <= 0.8": {"max_similarity": 0.8},
            "trained on cosine <= 0.7": {"max_similarity": 0.7},
        },
        lists={
            "unfiltered": {"snr_db": (-10.0, 10.0)},
            "filtered-0.8": {"snr_db": (-10.0, 10.0), "max_similarity": 0.8},
            "filtered-0.7": {"snr_db": (-10.0, 10.0), "max_similarity": 0.7},
        },
    ),
    "conditioning": Study(
        title="What the words are worth, and which way of reading them",
        variants={
            "cross-attention": {},
            "FiLM": {"architecture": "film_resunet"},
            "no text": {"text_encoder": "none"},
        },
        lists={"conditioning": {"snr_db": (0.0, 0.0)}},
    ),
}


def run_study(study: Study, directory: str | Path, *, progress: bool = True) -> dict[str, Any]:
    """Train what is not trained yet, and score every variant on every list.

    Args:
        study: what to compare.
        directory: folder of the trainings.
        progress: show bars.

    Returns:
        For each list the JSON of its comparison, without the single items, and the settings under "study".

    Raises:
        ValueError: a corpus is not there, or a training in the folder has other settings.
    """
    directory = Path(directory)
    systems = []
    for number, (name, settings) in enumerate(study.variants.items()):
        recipe = replace(study.base, **settings)
        folder = directory / f"{number}-{'-'.join(f'{key}-{value}' for key, value in settings.items()) or 'base'}"
        train_masking(recipe, folder, resume=(folder / STATE_FILE).exists(), progress=progress)
        systems.append((name, load_separator(folder / "last")))
    clips = load_corpus("esc50", folds=study.folds)
    found = {}
    for name, settings in study.lists.items():
        pairs = MixtureDataset(clips, n=study.n, seconds=5.0, seed=study.base.seed + 1, **settings)
        comparison = evaluate(
            [system for _, system in systems],
            pairs,
            names=[system for system, _ in systems],
            progress=progress,
            corpus=f"ESC-50 fold {', '.join(map(str, study.folds))}"
            + (f", cosine at most {settings['max_similarity']:g}" if "max_similarity" in settings else ""),
        )
        variants = {variant: dict(changed) for variant, changed in study.variants.items()}
        settings_of_all = {"title": study.title, "base": asdict(study.base), "variants": variants, "list": settings}
        found[name] = without_items(comparison.to_json()) | {"study": settings_of_all}
    return found


def without_items(comparison: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a comparison without its rows per item: small enough to be kept beside the figures it gave."""
    reports = [{key: value for key, value in report.items() if key != "per_item"} for report in comparison["reports"]]
    return comparison | {"reports": reports}


def main(arguments: list[str] | None = None) -> int:
    """`python -m lasslab.training.studies`."""
    parser = argparse.ArgumentParser(description="Train variants alike and compare them.")
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the reports, one for each list")
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"), help="folder of the trainings")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="change a setting of all")
    options = parser.parse_args(arguments)
    study = STUDIES[options.study]
    try:
        study = replace(study, base=change_recipe(study.base, options.set))
        reports = run_study(study, options.runs / options.study)
        options.output.mkdir(parents=True, exist_ok=True)
        for name, report in reports.items():
            write_json(options.output / f"{name}.json", report)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"wrote {', '.join(f'{name}.json' for name in reports)} in {options.output}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
