"""Latents and token embeddings on disk: the same numbers as without, and never those of something else."""

import copy
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader, default_collate

from lasslab.data.clips import Clip
from lasslab.data.crops import Augmentation
from lasslab.data.edits import EditDataset, edit_batch
from lasslab.data.mixtures import MixtureDataset, mix_batch
from lasslab.models.checkpoints import weights_sha256
from lasslab.models.text import NoText, TextEmbedding, TextEncoder
from lasslab.models.vae import MelVAE, VAEConfig
from lasslab.signal.levels import level_gain
from lasslab.signal.mel import log_mel_spectrogram
from lasslab.training import latents
from lasslab.training.latents import (
    LatentPairs,
    cache_root,
    cached_text,
    describe,
    encode_pairs,
    make_key,
)

TINY = VAEConfig(channels=(4, 8), latent_channels=2, n_mels=16, scaling_factor=1.3)
LABELS = ("dog", "rain", "siren")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(latents, "PART", 4)
    monkeypatch.setattr(latents, "BATCH", 3)


@pytest.fixture
def vae() -> MelVAE:
    torch.manual_seed(0)
    return MelVAE(TINY).eval().requires_grad_(False)


@pytest.fixture
def corpus(tmp_path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number, label in enumerate(LABELS):
        noise = np.random.default_rng(number).normal(scale=0.1, size=8_000)
        soundfile.write(folder / f"{label}.wav", noise, 16_000, subtype="FLOAT")
    return folder


def clips(corpus: Path) -> list[Clip]:
    return [
        Clip(
            label=label,
            captions=(f"a {label}", f"the {label}"),
            source=label,
            corpus="own",
            path=corpus / f"{label}.wav",
        )
        for label in LABELS
    ]


def mixtures(corpus: Path, n: int = 6, **changes) -> MixtureDataset:
    chosen = changes.pop("clips", None) or clips(corpus)
    settings = {"seconds": 0.2, "snr_db": (-5.0, 5.0), "augmentation": Augmentation(shift=True), "seed": 3}
    return MixtureDataset(chosen, n=n, **settings | changes)


def build(corpus: Path, vae: MelVAE, root: Path, n: int = 6, **changes) -> LatentPairs:
    return LatentPairs(mixtures(corpus, n, **changes), vae, root=root, progress=False)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


# --- the numbers


def test_mixture_and_target_are_encoded_by_the_mixture_s_gain(corpus, vae):
    batch = mix_batch(default_collate([mixtures(corpus)[i] for i in range(2)]))
    mixture, target = encode_pairs(vae, batch["mixture"], batch["target"])
    gain = level_gain(batch["mixture"])
    for found, waveform in ((mixture, batch["mixture"]), (target, batch["target"])):
        torch.testing.assert_close(found, vae.encode(log_mel_spectrogram(waveform * gain, vae.mel)))
    louder = encode_pairs(vae, 5 * batch["mixture"], 5 * batch["target"])
    torch.testing.assert_close(louder[1], target, rtol=1e-3, atol=1e-3)


def test_items_are_what_encoding_on_the_fly_gives(corpus, vae, tmp_path):
    dataset = mixtures(corpus, 6)
    cached = LatentPairs(dataset, vae, root=tmp_path / "cache", progress=False)
    assert len(cached) == 6
    for index in range(6):
        batch = mix_batch(default_collate([dataset[index]]))
        mixture, target = encode_pairs(vae, batch["mixture"], batch["target"])
        item = cached[index]
        assert item["query"] == dataset[index]["query"] and item["label"] == dataset[index]["label"]
        for name, expected in (("mixture", mixture[0]), ("target", target[0])):
            assert item[name].shape == (2, 6, 4) and item[name].dtype == torch.float32
            torch.testing.assert_close(item[name], expected, rtol=1e-3, atol=1e-3)  # float16 has 11 bits
    for beyond in (6, -1):
        with pytest.raises(IndexError):
            cached[beyond]
    assert cached.sentences == sorted({dataset[i]["query"] for i in range(6)})


def test_an_absent_sound_has_the_latent_of_silence(corpus, vae, tmp_path):
    """Not of a log-mel of zeros, which is as loud as it can be: FlowSep's released code takes that for silence."""
    cached = build(corpus, vae, tmp_path, 4, absent=1.0)
    silent = vae.encode(log_mel_spectrogram(torch.zeros(1, 3_200), vae.mel))[0]
    loud = vae.encode(torch.zeros(1, 16, 21))[0]
    for index in range(4):
        torch.testing.assert_close(cached[index]["target"], silent, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(cached[index]["target"], loud, atol=0.05)
        assert not torch.allclose(cached[index]["mixture"], silent, atol=0.05)


def test_workers_and_pickles_read_the_same(corpus, vae, tmp_path):
    cached = build(corpus, vae, tmp_path)
    cached[0]  # opens a file, which does not travel
    copied = pickle.loads(pickle.dumps(cached))
    assert torch.equal(copied[5]["target"], cached[5]["target"])
    (batch,) = DataLoader(cached, batch_size=6, num_workers=1)
    assert torch.equal(batch["mixture"], torch.stack([cached[i]["mixture"] for i in range(6)]))
    assert batch["query"] == [cached[i]["query"] for i in range(6)]


# --- the key


def key(corpus, vae, **changes) -> str:
    about = {"vae": weights_sha256(vae), "config": vae.config.to_dict(), "data": describe(mixtures(corpus, **changes))}
    return make_key(about)


def test_the_same_again_is_the_same_folder_and_nothing_is_encoded(corpus, vae, tmp_path, monkeypatch):
    first = build(corpus, vae, tmp_path)
    before = content(tmp_path)
    monkeypatch.setattr(latents, "encode_pairs", lambda *_: pytest.fail("encoded again"))
    second = build(corpus, copy.deepcopy(vae), tmp_path)
    assert second.folder == first.folder and content(tmp_path) == before
    assert torch.equal(second[3]["target"], first[3]["target"])


def test_the_key_follows_the_vae(corpus, vae, tmp_path):
    first = build(corpus, vae, tmp_path)
    other_weights = copy.deepcopy(vae)
    next(other_weights.parameters()).data.view(-1)[0] += 1e-3
    other_scale = MelVAE(replace(TINY, scaling_factor=0.5)).eval().requires_grad_(False)
    other_scale.load_state_dict(vae.state_dict())
    folders = {first.folder, *(build(corpus, other, tmp_path).folder for other in (other_weights, other_scale))}
    assert len(folders) == 3, "the same weights with another scaling factor give other latents"
    about = json.loads((first.folder / "about.json").read_text())
    assert about["vae"] == weights_sha256(vae) and about["vae_config"]["scaling_factor"] == 1.3


def test_a_fingerprint_is_of_values_names_and_shapes_not_of_memory(vae):
    same = copy.deepcopy(vae).to(memory_format=torch.channels_last)
    assert weights_sha256(same) == weights_sha256(vae)
    assert weights_sha256(copy.deepcopy(vae).half()) != weights_sha256(vae)
    plain, renamed = torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.Linear(2, 3))
    renamed[0].load_state_dict(plain.state_dict())
    assert weights_sha256(plain) != weights_sha256(renamed)


CHANGES = {
    "seed": {"seed": 4},
    "snr_db": {"snr_db": (-5.0, 6.0)},
    "equal loudness": {"snr_db": None},
    "seconds": {"seconds": 0.25},
    "augmentation": {"augmentation": Augmentation(shift=True, filter_db=3.0)},
    "no augmentation": {"augmentation": None},
    "filter": {"max_similarity": 0.98},
    "another filter": {"max_similarity": 0.95},
    "weights": {"weights": (0.5, 0.25, 0.25)},
    "target_labels": {"target_labels": ("dog", "rain")},
    "third_source": {"third_source": 0.5},
    "absent": {"absent": 0.5},
    "reword": {"reword": 0.5},
}


def test_every_setting_of_the_mixing_has_its_own_key(corpus, vae):
    keys = {name: key(corpus, vae, **changes) for name, changes in {"": {}, **CHANGES}.items()}
    assert len(set(keys.values())) == len(keys), keys
    assert key(corpus, vae) == key(corpus, vae, n=2), "how many items is no part of it"


def test_every_field_of_a_clip_has_its_own_key(corpus, vae):
    changes = [
        {"captions": ("a hound", "the dog")},
        {"label": "hound"},
        {"source": "other"},
        {"tags": ("bark",)},
        {"max_seconds": 0.3},
        {"corpus": "other"},
        {"path": None, "seed": 1, "label": "dog_barking"},
        {"path": None, "seed": 2, "label": "dog_barking"},
        {"path": None, "seed": 2, "seconds": 2.0, "label": "dog_barking"},
    ]
    first, *others = clips(corpus)
    keys = [key(corpus, vae)] + [key(corpus, vae, clips=[replace(first, **change), *others]) for change in changes]
    keys.append(key(corpus, vae, clips=[*others, first]))
    assert len(set(keys)) == len(keys)


def test_another_recording_of_the_same_name_and_size_is_another_key(corpus, vae):
    before = key(corpus, vae)
    samples, rate = soundfile.read(corpus / "dog.wav", dtype="float32")
    size = (corpus / "dog.wav").stat().st_size
    samples[4_000] = 0.3  # one sample in the middle
    soundfile.write(corpus / "dog.wav", samples, rate, subtype="FLOAT")
    assert (corpus / "dog.wav").stat().st_size == size
    assert key(corpus, vae) != before


def test_where_the_corpus_lies_does_not_matter(corpus, vae, tmp_path):
    first = build(corpus, vae, tmp_path / "cache")
    moved = tmp_path / "elsewhere" / "corpus"
    moved.parent.mkdir()
    shutil.move(corpus, moved)
    assert build(moved, vae, tmp_path / "cache").folder == first.folder
    (moved / "dog.wav").unlink()
    with pytest.raises(ValueError, match="dog.wav cannot be read") as error:
        build(moved, vae, tmp_path / "cache")
    one_line(error)


# --- building


def test_an_interrupted_build_goes_on_to_the_same_bytes(corpus, vae, tmp_path, monkeypatch):
    whole = build(corpus, vae, tmp_path / "whole", 10)
    calls, encode = [], latents.encode_pairs

    def interrupted(*arguments):
        calls.append(len(arguments[1]))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(*arguments)

    monkeypatch.setattr(latents, "encode_pairs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(corpus, vae, tmp_path / "parts", 10)
    left = content(tmp_path / "parts")
    assert sorted(Path(name).name for name in left) == ["about.json", "part_00000.json", "part_00000.safetensors"]
    calls.clear()
    monkeypatch.setattr(latents, "encode_pairs", lambda *a: (calls.append(len(a[1])), encode(*a))[1])
    continued = build(corpus, vae, tmp_path / "parts", 10)
    assert sum(calls) == 6, "the four items of the first part are not made again"
    assert content(continued.folder) == content(whole.folder)


def test_a_part_without_its_notes_is_made_again(corpus, vae, tmp_path):
    """The notes are written last."""
    cached = build(corpus, vae, tmp_path)
    before = content(tmp_path)
    (cached.folder / "part_00001.json").unlink()
    (cached.folder / "part_00001.safetensors").write_bytes(b"half")
    build(corpus, vae, tmp_path)
    assert content(tmp_path) == before


def test_a_longer_run_extends_a_shorter_one(corpus, vae, tmp_path, monkeypatch):
    short = build(corpus, vae, tmp_path / "grown", 6)
    six = [short[index] for index in range(6)]
    sizes, encode = [], latents.encode_pairs
    monkeypatch.setattr(latents, "encode_pairs", lambda *a: (sizes.append(len(a[1])), encode(*a))[1])
    long = build(corpus, vae, tmp_path / "grown", 11)
    assert long.folder == short.folder and sum(sizes) == 7, "the whole first part is kept"
    assert content(long.folder) == content(build(corpus, vae, tmp_path / "at_once", 11).folder)
    for item, again, still in zip(six, long, short, strict=False):
        assert item["query"] == again["query"] == still["query"]
        assert torch.equal(item["target"], again["target"]) and torch.equal(item["target"], still["target"])
    sizes.clear()
    shorter = build(corpus, vae, tmp_path / "grown", 5)
    assert not sizes and len(shorter) == len(shorter.notes) == 5
    assert shorter.sentences == sorted({item["query"] for item in six[:5]}), "of its own items only"
    with pytest.raises(IndexError):
        shorter[5]


def test_a_part_shorter_than_its_notes_is_made_again(corpus, vae, tmp_path):
    """Two builds at once, one of fewer items, may leave the tensors of one beside the notes of the other."""
    long = build(corpus, vae, tmp_path / "long", 8)
    expected = content(long.folder)
    short = build(corpus, vae, tmp_path / "short", 6)
    shutil.copy(short.folder / "part_00001.safetensors", long.folder / "part_00001.safetensors")
    assert torch.equal(build(corpus, vae, tmp_path / "long", 8)[7]["target"], long[7]["target"])
    assert content(long.folder) == expected


@pytest.mark.parametrize("name", ["part_00001.safetensors", "part_00001.json"])
@pytest.mark.parametrize("damage", [b"", b"\x80pickle", None])
def test_a_damaged_part_is_named_in_one_line(corpus, vae, tmp_path, name, damage):
    cached = build(corpus, vae, tmp_path)
    path, expected = cached.folder / name, content(tmp_path)
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    with pytest.raises(ValueError, match="is damaged.*delete it") as error:
        build(corpus, vae, tmp_path)
    assert str(path) in one_line(error)
    path.unlink()
    build(corpus, vae, tmp_path)
    assert content(tmp_path) == expected, "the remedy works"


def test_a_folder_that_cannot_be_written_is_one_line(corpus, vae, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="cannot be written.*LASSLAB_CACHE") as error:
        build(corpus, vae, tmp_path / "file")
    one_line(error)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(latents, "save_file", full)
    with pytest.raises(ValueError, match="No space left.*make room") as error:
        build(corpus, vae, tmp_path / "cache")
    one_line(error)
    assert not list((tmp_path / "cache").rglob("part_*")), "no half of a part"


def test_the_cache_lies_beside_the_checkpoints_or_where_it_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("LASSLAB_CACHE", raising=False)
    monkeypatch.setenv("LASSLAB_CHECKPOINTS", str(tmp_path / "checkpoints"))
    assert cache_root() == tmp_path / "cache"
    monkeypatch.setenv("LASSLAB_CACHE", str(tmp_path / "named"))
    assert cache_root() == tmp_path / "named"


# --- edits


def edits(corpus: Path, **changes) -> EditDataset:
    clip = clips(corpus)[0]
    more = [replace(clip, label=label, source=label, captions=(f"a {label}",)) for label in ("wind", "bell")]
    return EditDataset([*clips(corpus), *more], n=6, **{"seconds": 0.2, "seed": 3} | changes)


def test_edits_are_encoded_by_the_original_s_gain(corpus, vae, tmp_path):
    dataset = edits(corpus)
    cached = LatentPairs(dataset, vae, root=tmp_path, progress=False)
    for index in range(6):
        batch = edit_batch(default_collate([dataset[index]]))
        gain = level_gain(batch["original"])
        item = cached[index]
        for name in ("original", "target"):
            expected = vae.encode(log_mel_spectrogram(batch[name] * gain, vae.mel))[0]
            torch.testing.assert_close(item[name], expected, rtol=1e-3, atol=1e-3)
        assert {name: item[name] for name in ("instruction", "task", "caption", "removed_label", "added_label")} == {
            name: dataset[index][name] for name in ("instruction", "task", "caption", "removed_label", "added_label")
        }
    assert cached.sentences == sorted({dataset[index]["instruction"] for index in range(6)})


def test_every_setting_of_the_edits_has_its_own_key(corpus):
    changes = [{}, {"seed": 4}, {"most_base_clips": 1}, {"level_db": (0.0, 1.0)}, {"seconds": 0.25}]
    changes += [{"augmentation": Augmentation(shift=True)}]
    keys = [make_key(describe(edits(corpus, **change))) for change in changes]
    assert len(set(keys)) == 6
    assert make_key(describe(mixtures(corpus))) not in keys


# --- token embeddings


class Letters:
    """An encoder of one token per letter, with weights of its own."""

    def __init__(self, seed: int = 0) -> None:
        self.calls: list[str] = []
        torch.manual_seed(seed)
        self.table = torch.nn.Embedding(128, 4)

    def encoder(self, name: str = "letters") -> TextEncoder:
        letters = self

        class Encoder(TextEncoder):
            dim, device = 4, torch.device("cpu")

            def __call__(self, texts):
                (text,) = texts
                letters.calls.append(text)
                tokens = letters.table(torch.tensor([ord(c) for c in text]))[None].detach()
                return TextEmbedding(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))

        return Encoder(None, self.table, name)


def test_sentences_are_encoded_once_and_read_back_to_the_bit(tmp_path):
    first, second = Letters(), Letters()
    made = cached_text(first.encoder(), ["rain", "a dog", "rain"], root=tmp_path)
    read = cached_text(second.encoder(), ["a dog", "rain"], root=tmp_path)
    assert first.calls == ["a dog", "rain"] and second.calls == []
    for sentences in (["rain"], ["rain", "a dog", "rain"]):
        for ours, theirs in zip(read(sentences), made(sentences), strict=True):
            assert torch.equal(ours, theirs)
    read(["thunder"])
    assert second.calls == ["thunder"], "an unknown sentence is encoded when it is met"


def test_the_text_key_follows_encoder_and_sentences(tmp_path):
    letters = Letters()
    cached_text(letters.encoder(), ["rain"], root=tmp_path)
    for encoder, sentences in (
        (Letters(1).encoder(), ["rain"]),
        (letters.encoder("other"), ["rain"]),
        (letters.encoder(), ["rain", "wind"]),
        (NoText(4), ["rain"]),
    ):
        before = len(list(tmp_path.rglob("*.safetensors")))
        cached_text(encoder, sentences, root=tmp_path)
        assert len(list(tmp_path.rglob("*.safetensors"))) == before + 1
    assert torch.equal(cached_text(NoText(4), ["rain"], root=tmp_path)(["rain"]).tokens, torch.ones(1, 1, 4))


def test_a_damaged_text_file_is_named_in_one_line(tmp_path):
    cached_text(Letters().encoder(), ["rain"], root=tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="is damaged") as error:
        cached_text(Letters().encoder(), ["rain"], root=tmp_path)
    assert str(path) in one_line(error)
    with pytest.raises(ValueError, match="cannot be written") as error:
        cached_text(Letters().encoder(), ["rain"], root=path)
    one_line(error)
