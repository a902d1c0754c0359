"""Latents on disk: mixtures or originals and their targets, encoded once, for trainings that see them many times.

A frozen VAE gives the same latent for the same spectrogram, so a flow and a diffusion on the same data, and every epoch
of either, can share one encoding. A folder holds parts of 256 items:

    <cache>/latents/<key>/about.json          what the key was made of
                          part_00000.safetensors   mixture (or original) and target (256, Z, N', M'), float16
                          part_00000.json          their queries and labels (or instructions and the rest)

The key is a hash of everything that decides the numbers: the VAE's weights and configuration, every clip, every setting
of the mixing. Whatever changes, another folder is used, and nothing stale is ever read. Parts are written whole or not
at all, so an interrupted build goes on where it stopped, and several processes may build at once.

Token embeddings are kept likewise, by the encoder and the sentences.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from lasslab.data.edits import EditDataset, edit_batch
from lasslab.data.mixtures import MixtureDataset, mix_batch
from lasslab.data.threads import in_threads
from lasslab.models.checkpoints import checkpoint_root, weights_sha256
from lasslab.models.text import NoText, TextCache, TextEncoder
from lasslab.models.vae import MelVAE
from lasslab.signal.files import write_atomically, write_json
from lasslab.signal.levels import level_gain
from lasslab.signal.mel import log_mel_spectrogram

PART = 256  # items in a file
BATCH = 8  # items encoded at a time
VERSION = 2  # of how latents are made here: change it and every key changes


class PairKind(NamedTuple):
    """What of a dataset's items is kept.

    Args:
        told: name of the waveform that the network is told, at whose level it works.
        sentence: name of the words that go with it.
        notes: names of the plain values that are kept.
        prepare: makes `told` and "target" of a batch of items.
    """

    told: str
    sentence: str
    notes: tuple[str, ...]
    prepare: Callable[[dict], dict]


#: class of dataset -> what of it is kept
KINDS: dict[type, PairKind] = {
    MixtureDataset: PairKind("mixture", "query", ("query", "label"), mix_batch),
    EditDataset: PairKind(
        "original",
        "instruction",
        ("instruction", "task", "caption", "removed_label", "added_label"),
        edit_batch,
    ),
}


def cache_root() -> Path:
    """Folder of what can be made again: `LASSLAB_CACHE` when it is set, else `cache` beside the checkpoints' folder."""
    if named := os.environ.get("LASSLAB_CACHE"):
        return Path(named).expanduser()
    return checkpoint_root().parent / "cache"


def describe(dataset: MixtureDataset | EditDataset) -> dict[str, Any]:
    """Everything that decides the items of a dataset, as plain values."""
    crops = dataset.crops
    clips = [
        {name: str(value) if isinstance(value, Path) else value for name, value in asdict(clip).items()}
        for clip in crops.clips
    ]
    for clip in clips:  # where a recording lies and what its file is called do not matter, what is in it does
        if clip["path"]:
            clip["path"] = _content(Path(clip["path"]))
    return {
        "kind": type(dataset).__name__,
        "clips": clips,
        "probability": [float(p) for p in crops.probability],
        "n_samples": crops.n_samples,
        "augmentation": asdict(crops.augmentation) if crops.augmentation else None,
        "reword": crops.reword,
        **dataset.settings(),
    }


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): restore the recording") from error


def make_key(values: Any) -> str:
    """A short hash of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:20]


@torch.no_grad()
def encode_pairs(vae: MelVAE, told: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled latents of mixtures (or originals) and targets, both by the gain that brings the former to the systems'
    level.

    Args:
        vae: in evaluation mode.
        told: mixtures or originals (B, T).
        target: (B, T); silence gives the latent of silent log-mels, log(1e-5), not of zeros.

    Returns:
        Latents (B, Z, N', M') of the former and of the targets.
    """
    gain = level_gain(told)
    log_mels = log_mel_spectrogram(torch.cat([told * gain, target * gain]), vae.mel)
    latents = vae.encode(log_mels)
    return latents[: len(told)], latents[len(told) :]


class LatentPairs(Dataset):
    """A `MixtureDataset` or an `EditDataset` as latents.

    An item is `{"mixture": (Z, N', M'), "target": (Z, N', M'), "query": str, "label": str}`; of edits, "original" has
    the place of "mixture", and there are "instruction", "task", "caption" and the two labels.

    Args:
        dataset: waveforms; item i of it is item i here.
        vae: frozen, on the device where it shall encode.
        root: folder of caches; `cache_root()` when left out.
        progress: show a bar while encoding.

    Raises:
        ValueError: the folder cannot be written, or a file in it is damaged. One line with the file and the remedy.
    """

    def __init__(
        self,
        dataset: MixtureDataset | EditDataset,
        vae: MelVAE,
        *,
        root: str | Path | None = None,
        progress: bool = True,
    ) -> None:
        about = {
            "version": VERSION,
            "vae": weights_sha256(vae),
            "vae_config": vae.config.to_dict(),
            "data": describe(dataset),
        }
        self.kind = KINDS[type(dataset)]
        self.n_items = len(dataset)
        self.folder = Path(root or cache_root()) / "latents" / make_key(about)
        self._build(dataset, vae, about, progress)
        # of a longer run's last part, the first
        self.notes = [note for number in range(self._n_parts) for note in self._notes(number)][: self.n_items]
        self._files: dict[int, Any] = {}

    def __len__(self) -> int:
        return self.n_items

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < self.n_items:
            raise IndexError(index)
        part, row = divmod(index, PART)
        if part not in self._files:
            self._files[part] = _open(self._part(part))
        latents = {name: self._files[part].get_slice(name)[row].float() for name in (self.kind.told, "target")}
        return latents | self.notes[index]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_files": {}}  # an open file does not travel to a worker

    @property
    def sentences(self) -> list[str]:
        """The distinct queries or instructions, sorted."""
        return sorted({note[self.kind.sentence] for note in self.notes})

    def _part(self, number: int) -> Path:
        return self.folder / f"part_{number:05d}.safetensors"

    def _notes(self, number: int) -> list[dict]:
        path = self._part(number).with_suffix(".json")
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise _damaged(path, error) from error

    @property
    def _n_parts(self) -> int:
        return -(-self.n_items // PART)

    def _build(self, dataset: MixtureDataset | EditDataset, vae: MelVAE, about: dict, progress: bool) -> None:
        from tqdm.auto import tqdm

        ranges = {
            number: range(number * PART, min((number + 1) * PART, self.n_items)) for number in range(self._n_parts)
        }
        missing = [number for number, items in ranges.items() if not self._holds(number, len(items))]
        if not missing:
            return
        total = sum(len(ranges[number]) for number in missing)
        with (
            _writing(self.folder),
            tqdm(total=total, desc="encoding sounds", unit="item", disable=not progress) as bar,
        ):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / "about.json", about)
            for number in missing:
                self._build_part(number, ranges[number], dataset, vae, bar)

    def _holds(self, number: int, n: int) -> bool:
        """Whether a part is there with at least n items: a longer run extends the last part of a shorter one."""
        part = self._part(number)
        if not (part.is_file() and part.with_suffix(".json").is_file()):
            return False
        return min(len(self._notes(number)), _open(part).get_slice("target").get_shape()[0]) >= n

    def _build_part(
        self, number: int, items: range, dataset: MixtureDataset | EditDataset, vae: MelVAE, bar: Any
    ) -> None:
        device, kind = next(vae.parameters()).device, self.kind

        def encoded(numbers: range) -> tuple[list[dict], Tensor, Tensor]:
            drawn = [dataset[number] for number in numbers]
            batch = kind.prepare({key: value.to(device) for key, value in _tensors(drawn).items()})
            latents = encode_pairs(vae, batch[kind.told], batch["target"])
            return [{name: item[name] for name in kind.notes} for item in drawn], *latents

        told, targets, notes = [], [], []
        # drawing keeps one core busy, and encoding all of them for a short time: in threads, each does both
        groups = (items[first : first + BATCH] for first in range(0, len(items), BATCH))
        with contextlib.closing(in_threads(encoded, groups)) as results:
            for said, *latents in results:
                notes += said
                for kept, latent in zip((told, targets), latents, strict=True):
                    kept.append(latent.to("cpu", torch.float16))
                bar.update(len(said))
        tensors = {kind.told: torch.cat(told).contiguous(), "target": torch.cat(targets).contiguous()}
        path = self._part(number)
        write_atomically(path, lambda temporary: save_file(tensors, temporary))
        write_json(path.with_suffix(".json"), notes)  # last: a part is there when its notes are


def _open(path: Path) -> Any:
    """A safetensors file, mapped into memory and not read."""
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = str(error).partition("\n")[0]
    return ValueError(f"{path} is damaged ({reason}): delete it, what it held is made again")


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say in one line that a folder cannot be written; what is there already stays, and is not made again."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{folder} cannot be written ({error}): make room, or set LASSLAB_CACHE to another folder"
        ) from error


def _tensors(items: Sequence[dict]) -> dict[str, Tensor]:
    return default_collate([{key: value for key, value in item.items() if isinstance(value, Tensor)} for item in items])


def cached_text(
    encoder: TextEncoder | NoText, sentences: Iterable[str], *, root: str | Path | None = None
) -> TextCache:
    """A `TextCache` that knows these sentences already, from the disk where they were encoded before.

    Args:
        encoder: frozen.
        sentences: to be known.
        root: folder of caches; `cache_root()` when left out.

    Returns:
        The cache; other sentences are encoded when they are met.

    Raises:
        ValueError: the folder cannot be written, or the file in it is damaged.
    """
    sentences = sorted(set(sentences))
    cache = TextCache(encoder, max_sentences=max(20_000, 2 * len(sentences)))
    weights = weights_sha256(encoder.model) if isinstance(encoder, TextEncoder) else ""
    key = make_key({"version": VERSION, "encoder": [encoder.name, encoder.dim, weights], "sentences": sentences})
    path = Path(root or cache_root()) / "text" / f"{key}.safetensors"
    if path.is_file():
        try:
            cache.restore(sentences, load_file(path))
        except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
            raise _damaged(path, error) from error
        return cache
    cache(sentences)
    tensors = cache.export(sentences)
    with _writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: save_file(tensors, temporary))
    return cache
