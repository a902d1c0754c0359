"""Sound files, sample rates, channels, length and loudness.

Waveforms are float32 tensors, full scale is [-1, 1], the last axis is time: (T,) or (C, T). Decoding is
libsndfile's (soundfile), resampling soxr's, loudness pyloudnorm's; each is imported where it is used, so that
importing the package stays quick.

A file is read and written whole (`read_audio`, `save_audio`) or as a stream of blocks (`scan_audio`, `read_blocks`,
`save_blocks`), in memory that does not depend on its length; both give the same samples.
"""

import io
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lasslab.signal.files import write_atomically

if TYPE_CHECKING:
    import soundfile

SAMPLE_RATE = 16_000
LOUDNESS_BLOCK = 0.4  # seconds, ITU-R BS.1770

# suffix -> (libsndfile format, subtype); 32-bit float WAV keeps samples beyond full scale, the others cannot
FORMATS = {
    ".wav": ("WAV", "FLOAT"),
    ".flac": ("FLAC", "PCM_24"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
BLOCK_FRAMES = 65_536  # libsndfile's Vorbis encoder overflows its stack when handed minutes in one call
WAV_LIMIT = 2**32 - 2**16  # bytes of samples: the header of a WAV file counts in 32 bits, its 64-bit twin is RF64


def read_audio(path: str | Path) -> tuple[Tensor, int]:
    """Read a WAV, FLAC, OGG or MP3 file as it is: every channel, at its own rate.

    Args:
        path: the file.

    Returns:
        Samples, float32, shape (C, T), and the sample rate in Hz.

    Raises:
        ValueError: the file is missing, unreadable or empty, or has NaN or infinite samples.
    """
    path = Path(path)
    with _open_audio(path) as file:
        waveform, sample_rate = _read_samples(file, path, -1), file.samplerate
    if waveform.shape[-1] == 0:
        raise ValueError(f"{path} holds no samples: record or download it again")
    return waveform, sample_rate


@dataclass(frozen=True)
class AudioScan:
    """What a sound file holds, found by reading it once from start to end.

    Attributes:
        sample_rate: Hz.
        n_channels: C.
        n_samples: T, counted; a header may be wrong.
        peak: largest absolute sample.
        rms: root mean square over all channels.
    """

    sample_rate: int
    n_channels: int
    n_samples: int
    peak: float
    rms: float


def scan_audio(path: str | Path) -> AudioScan:
    """Read a sound file through, block by block, and say what is in it.

    Args:
        path: WAV, FLAC, OGG or MP3 file.

    Returns:
        Rate, channels, length and level; a peak of 0 is silence from start to end.

    Raises:
        ValueError: see `read_audio`; broken samples are found wherever they are.
    """
    path = Path(path)
    with _open_audio(path) as file:
        n_samples, peak, energy = 0, 0.0, 0.0
        while (block := _read_samples(file, path, BLOCK_FRAMES).numpy()).shape[-1]:
            n_samples += block.shape[-1]
            peak = max(peak, float(np.abs(block).max()))
            energy += float(np.square(block, dtype=np.float64).sum())
        sample_rate, n_channels = file.samplerate, file.channels
    if n_samples == 0:
        raise ValueError(f"{path} holds no samples: record or download it again")
    return AudioScan(sample_rate, n_channels, n_samples, peak, math.sqrt(energy / (n_samples * n_channels)))


def read_blocks(path: str | Path, *, n_samples: int = BLOCK_FRAMES) -> Iterator[Tensor]:
    """Read a sound file as a stream.

    Args:
        path: WAV, FLAC, OGG or MP3 file.
        n_samples: length of a block; the last may be shorter.

    Yields:
        Tensor: Samples, float32, shape (C, n), which put together are `read_audio`'s.

    Raises:
        ValueError: see `read_audio`, raised when the stream gets there; a block length below 1.
    """
    path = Path(path)
    if n_samples < 1:
        raise ValueError(f"a block must have at least 1 sample, got {n_samples}: use {BLOCK_FRAMES}")
    with _open_audio(path) as file:
        while (block := _read_samples(file, path, n_samples)).shape[-1]:
            yield block


def load_audio(path: str | Path, *, sample_rate: int = SAMPLE_RATE, mono: bool = True) -> Tensor:
    """Read an audio file at the rate we want.

    Args:
        path: WAV, FLAC, OGG or MP3 file.
        sample_rate: rate to resample to, Hz.
        mono: average the channels.

    Returns:
        Samples, float32, shape (T,) if mono, else (C, T).

    Raises:
        ValueError: see `read_audio`.

    Notebook: 01.
    """
    waveform, file_rate = read_audio(path)
    if mono:
        waveform = to_mono(waveform)
    return resample(waveform, orig_rate=file_rate, new_rate=sample_rate)


def save_audio(path: str | Path, waveform: Tensor, *, sample_rate: int) -> None:
    """Write an audio file whole, or not at all.

    The suffix decides the format: WAV is 32-bit float and never clips, FLAC is 24-bit, OGG is Vorbis,
    which takes six channels for 5.1 and keeps only the bass of the last. The file is written under a temporary
    name in the same folder and then renamed, so a failure leaves what was there.

    Args:
        path: file to write, .wav, .flac, .ogg or .mp3.
        waveform: samples, shape (T,) or (C, T).
        sample_rate: Hz.

    Raises:
        ValueError: unknown suffix, no such folder, unusable samples, samples beyond full scale in a format
            that would clip them, or a rate or channel count that the format cannot hold.
    """
    path = Path(path)
    _check_destination(path)
    check_waveform(waveform, name=f"the waveform for {path}")
    _check_peak(path, waveform)
    channels = waveform.detach().reshape(-1, waveform.shape[-1])  # (C, T)
    save_blocks(path, [channels], sample_rate=sample_rate, n_channels=len(channels), n_samples=channels.shape[-1])


def save_blocks(
    path: str | Path,
    blocks: Iterable[Tensor],
    *,
    sample_rate: int,
    n_channels: int,
    n_samples: int | None = None,
) -> None:
    """Write a sound file from a stream of blocks, whole or not at all.

    Formats as in `save_audio`. The blocks are written under a temporary name as they come; when the last one is
    in, the file gets its name. Whatever ends the stream before that, an error in it or Ctrl-C, leaves what was
    there.

    Args:
        path: file to write, .wav, .flac, .ogg or .mp3.
        blocks: samples, shape (C, n) each.
        sample_rate: Hz.
        n_channels: C.
        n_samples: T if it is known beforehand: a WAV file of more than 4 GiB is then written as RF64, which
            begins with other letters and is read by everything that knows long files.

    Raises:
        ValueError: unknown suffix, no such folder, a full disk, a rate or channel count that the format cannot
            hold, an unusable block, a WAV file that grows beyond 4 GiB unannounced; or samples beyond full
            scale in a format that would clip them, which in a stream is known only when they come.
    """
    path = Path(path)
    _check_destination(path)
    file_format, _ = FORMATS[path.suffix.lower()]
    if file_format == "WAV" and n_samples is not None and 4 * n_channels * n_samples > WAV_LIMIT:
        file_format = "RF64"
    try:
        write_atomically(path, lambda temporary: _encode(temporary, path, blocks, sample_rate, n_channels, file_format))
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}): check space and rights") from error


def clips(path: str | Path) -> bool:
    """Whether a file of this name cuts off what goes beyond full scale: every format but 32-bit float WAV."""
    return FORMATS[Path(path).suffix.lower()][1] != "FLOAT"


def check_format(path: str | Path, *, sample_rate: int, n_channels: int) -> None:
    """Refuse, before there are any samples, a file that `save_blocks` could not write.

    Args:
        path: file to write.
        sample_rate: Hz.
        n_channels: C.

    Raises:
        ValueError: unknown suffix, no such folder, or a rate or channel count that the format cannot hold.
    """
    import soundfile

    path = Path(path)
    _check_destination(path)
    file_format, subtype = FORMATS[path.suffix.lower()]
    try:
        soundfile.SoundFile(io.BytesIO(), "w", int(sample_rate), n_channels, subtype, format=file_format).close()
    except soundfile.SoundFileError as error:
        raise ValueError(_unfit(path, sample_rate, n_channels, file_format)) from error


def resample(waveform: Tensor, *, orig_rate: int, new_rate: int) -> Tensor:
    """Change the sample rate with a band-limited filter (soxr, high quality).

    Not differentiable: the result is detached.

    Args:
        waveform: samples, shape (..., T).
        orig_rate: its rate, Hz.
        new_rate: the rate wanted, Hz.

    Returns:
        Samples, shape (..., round(T new_rate / orig_rate)), at least one; the waveform itself when the rates
        are equal.

    Raises:
        ValueError: no samples, or a rate that is not a positive whole number.
    """
    import soxr

    for name, rate in (("orig_rate", orig_rate), ("new_rate", new_rate)):
        if rate < 1 or rate != int(rate):
            raise ValueError(f"{name} must be a positive whole number of Hz, got {rate}: use 16000")
    *leading, n_samples = waveform.shape
    if waveform.numel() == 0:
        raise ValueError(f"a waveform to resample must have samples, got shape {tuple(waveform.shape)}")
    if orig_rate == new_rate:
        return waveform
    rows = waveform.detach().cpu().reshape(-1, n_samples).numpy()
    converted = [torch.from_numpy(soxr.resample(row, orig_rate, new_rate, quality="HQ")) for row in rows]
    n_wanted = max(1, round(n_samples * new_rate / orig_rate))
    resampled = torch.stack([fit_length(row, n_wanted) for row in converted])
    return resampled.reshape(*leading, n_wanted).to(waveform)


def to_mono(waveform: Tensor) -> Tensor:
    """Average the channels: (C, T) -> (T,). Sounds in opposite phase on two channels cancel."""
    if waveform.dim() != 2:
        raise ValueError(f"expected shape (C, T), got {tuple(waveform.shape)}: a clip (T,) is mono already")
    return waveform[0] if len(waveform) == 1 else waveform.mean(dim=0)


def loudness(waveform: Tensor, *, sample_rate: int) -> float:
    """Integrated loudness in LUFS, ITU-R BS.1770-4.

    L = -0.691 + 10 log10(sum_c G_c z_c): z_c is the mean square of channel c after K-weighting, over the
    blocks of 0.4 s that pass the gates (-70 LUFS, then 10 LU below the mean). A full-scale sine at 997 Hz on
    one channel is -3.01 LUFS; pyloudnorm's filters read 0.04 to 0.07 LU below that at 48 and 16 kHz.

    A clip shorter than one block is repeated until it fills one. Six channels are taken as 5.1 (L R C LFE Ls
    Rs), whose LFE does not count.

    Args:
        waveform: samples, shape (T,) or (C, T).
        sample_rate: Hz.

    Returns:
        Loudness in LUFS; -inf for silence, which is anything that stays below the -70 LUFS gate.

    Raises:
        ValueError: unusable samples, or more than six channels.

    Reference: Recommendation ITU-R BS.1770-4, 2015. Notebook: 03.
    """
    import pyloudnorm

    check_waveform(waveform)
    samples = waveform.detach().cpu().double().reshape(-1, waveform.shape[-1])  # (C, T)
    if samples.shape[0] > 6:
        raise ValueError(f"loudness is defined for up to 6 channels, got {samples.shape[0]}: mix down with to_mono")
    if samples.shape[0] == 6:
        samples = samples[[0, 1, 2, 4, 5]]
    n_block = math.ceil(LOUDNESS_BLOCK * sample_rate)
    if samples.shape[-1] < n_block:
        samples = samples.repeat(1, -(-n_block // samples.shape[-1]))[:, :n_block]
    return float(pyloudnorm.Meter(sample_rate).integrated_loudness(samples.T.numpy()))


def normalise_loudness(waveform: Tensor, *, lufs: float, sample_rate: int) -> Tensor:
    """Scale a clip to a loudness: y = 10^((lufs - L) / 20) x. The result may go beyond full scale.

    Args:
        waveform: samples, shape (T,) or (C, T).
        lufs: loudness wanted, LUFS.
        sample_rate: Hz.

    Returns:
        Samples, the shape of waveform.

    Raises:
        ValueError: the clip is silent, so no gain reaches the loudness; or see `loudness`.

    Notebook: 03.
    """
    measured = loudness(waveform, sample_rate=sample_rate)
    if measured == -math.inf:
        raise ValueError(f"a silent clip cannot be brought to {lufs} LUFS: leave it out or choose another")
    return waveform * 10 ** ((lufs - measured) / 20)


def fit_length(waveform: Tensor, n_samples: int, *, offset: int = 0) -> Tensor:
    """Crop to n_samples from an offset; if the clip ends before, zeros follow.

    Args:
        waveform: samples, shape (..., T).
        n_samples: samples wanted, at least 1.
        offset: first sample to keep, 0 to T.

    Returns:
        Samples, shape (..., n_samples).

    Raises:
        ValueError: n_samples or offset out of range.

    Notebook: 03.
    """
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1, got {n_samples}: pass seconds times sample_rate")
    if not 0 <= offset <= waveform.shape[-1]:
        raise ValueError(f"offset must be 0 to {waveform.shape[-1]} here, got {offset}: start earlier")
    cropped = waveform[..., offset : offset + n_samples]
    return functional.pad(cropped, (0, n_samples - cropped.shape[-1]))


def check_waveform(
    waveform: Tensor, *, name: str = "waveform", min_samples: int = 1, dims: tuple[int, ...] = (1, 2)
) -> Tensor:
    """Refuse what is not a usable waveform.

    Args:
        waveform: what to look at.
        name: how the message calls it.
        min_samples: fewest samples accepted.
        dims: numbers of dimensions accepted; (1, 2) is (T,) or (C, T).

    Returns:
        The waveform, unchanged.

    Raises:
        ValueError: not a floating-point tensor, other dimensions, too short, or NaN or infinite samples.
    """
    if not isinstance(waveform, Tensor):
        raise ValueError(f"{name} must be a torch tensor, got {type(waveform).__name__}: use torch.as_tensor")
    if not waveform.is_floating_point():
        raise ValueError(f"{name} must hold floats in [-1, 1], got {waveform.dtype}: divide by full scale")
    if waveform.dim() not in dims:
        shapes = " or ".join(str(count) for count in dims)
        raise ValueError(
            f"{name} must have {shapes} dimensions, time last, got shape {tuple(waveform.shape)}: reshape it"
        )
    if waveform.numel() == 0 or waveform.shape[-1] < min_samples:
        raise ValueError(
            f"{name} must have at least {min_samples} samples, got shape {tuple(waveform.shape)}: use a longer clip"
        )
    if not waveform.isfinite().all():
        raise ValueError(f"{name} has NaN or infinite samples: clean the recording first")
    return waveform


def _check_destination(path: Path) -> None:
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path} has no known audio suffix: use one of {', '.join(FORMATS)}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the path of one audio file")
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written, there is no folder {path.parent}: make it first")


@contextmanager
def _open_audio(path: Path) -> "Iterator[soundfile.SoundFile]":
    """An open sound file; what keeps it from being one is said in one line."""
    import soundfile

    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the path of one audio file")
    if not path.exists():
        raise ValueError(f"{path} does not exist: check the path")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is an empty file: record or download it again")
    if path.suffix.lower() == ".mp3" and not _may_be_audio(path):
        raise ValueError(_unreadable(path))
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, OSError) as error:
        raise ValueError(_unreadable(path)) from error
    with file:
        yield file


def _unreadable(path: Path) -> str:
    return f"{path} cannot be read as audio: convert it to WAV, FLAC, OGG or MP3"


def _read_samples(file: "soundfile.SoundFile", path: Path, n_samples: int) -> Tensor:
    """The next samples of a file, all that are left for -1: shape (C, n), n = 0 at its end."""
    import soundfile

    try:
        samples = file.read(n_samples, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise ValueError(_unreadable(path)) from error
    if not np.isfinite(samples).all():  # in numpy: torch would wake its threads for every small block
        raise ValueError(f"{path} has NaN or infinite samples: export it again from the program that made it")
    return torch.from_numpy(np.ascontiguousarray(samples.T))  # (C, n)


def _check_peak(path: Path, samples: Tensor, *, at: str = "") -> None:
    """Refuse what goes beyond full scale in a format that cannot hold it."""
    peak = samples.abs().max().item()
    if peak > 1 and clips(path):
        raise ValueError(f"{path} would clip, its peak is {peak:.3g} of 1{at}: lower the level or save as .wav")


class _Sink:
    """A file for libsndfile to write into, which remembers the first failure.

    libsndfile itself does not report a disk that fills up while it closes a file, and an exception cannot pass
    through it: Ctrl-C would be printed and forgotten.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.open("w+b")
        self.failure: BaseException | None = None

    def _guard(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except BaseException as error:
            self.failure = self.failure or error
            return 0

    def write(self, data: bytes) -> int:
        return self._guard(self.file.write, data)

    def readinto(self, buffer: bytearray) -> int:
        return self._guard(self.file.readinto, buffer)

    def seek(self, offset: int, whence: int) -> int:
        return self._guard(self.file.seek, offset, whence)

    def tell(self) -> int:
        return self._guard(self.file.tell)

    @contextmanager
    def watch(self, unfit: str) -> Iterator[None]:
        """Around every call of libsndfile: raise what happened in the file, or `unfit` where the format refuses."""
        import soundfile

        try:
            yield
        except (soundfile.SoundFileError, AssertionError) as error:  # soundfile asserts that all was written
            if self.failure is None:
                raise ValueError(unfit) from error
        if self.failure is not None:
            raise self.failure


def _encode(
    temporary: Path, path: Path, blocks: Iterable[Tensor], sample_rate: int, n_channels: int, file_format: str
) -> None:
    """Write the blocks to `temporary`, the file that will be `path`."""
    import soundfile

    unfit = _unfit(path, sample_rate, n_channels, file_format)
    sink = _Sink(temporary)
    subtype = FORMATS[path.suffix.lower()][1]
    with sink.file:
        with sink.watch(unfit):
            file = soundfile.SoundFile(sink, "w", int(sample_rate), n_channels, subtype, format=file_format)
        try:
            n_written = 0
            for block in _regrouped(_checked(path, blocks, sample_rate, n_channels), BLOCK_FRAMES):
                n_written += block.shape[-1]
                if file_format == "WAV" and 4 * n_channels * n_written > WAV_LIMIT:
                    raise ValueError(f"{path} would grow beyond 4 GiB, more than WAV can hold: save as .flac")
                with sink.watch(unfit):
                    file.write(block.T.numpy())
            if n_written == 0:
                raise ValueError(f"there are no samples for {path}: give it at least one block")
            with sink.watch(unfit):
                file.close()
        except BaseException:
            with suppress(soundfile.SoundFileError):
                file.close()  # before the file that it writes into
            raise


def _unfit(path: Path, sample_rate: int, n_channels: int, file_format: str) -> str:
    return (
        f"{path} cannot hold {n_channels} channels at {sample_rate} Hz in {file_format}: "
        "resample to 16000 Hz, mix down with to_mono, or save as .wav"
    )


def _checked(path: Path, blocks: Iterable[Tensor], sample_rate: int, n_channels: int) -> Iterator[Tensor]:
    """The blocks, each looked at before it is handed on."""
    n_passed = 0
    for block in blocks:
        check_waveform(block, name=f"a block for {path}", dims=(2,))
        if block.shape[0] != n_channels:
            raise ValueError(f"{path} has {n_channels} channels, got a block of shape {tuple(block.shape)}")
        _check_peak(path, block, at=f" at {n_passed / sample_rate:.2f} s" if n_passed else "")
        n_passed += block.shape[-1]
        yield block.detach().cpu().float()


def _regrouped(blocks: Iterable[Tensor], n: int) -> Iterator[Tensor]:
    """The same samples in blocks of n: what a codec makes of a sound would depend on the blocks it is handed."""
    left: list[Tensor] = []  # fewer than n samples
    for block in blocks:
        *full, rest = torch.cat([*left, block], dim=-1).split(n, dim=-1)
        if rest.shape[-1] == n:
            full, rest = [*full, rest], rest[..., :0]
        yield from full
        left = [rest] if rest.shape[-1] else []
    yield from left


def _may_be_audio(path: Path) -> bool:
    """Whether a file begins like a sound; the MP3 decoder would comment on other files on standard error."""
    with path.open("rb") as file:
        head = file.read(4096)
    # 0xff begins every MPEG frame and never occurs in text
    return head.startswith((b"ID3", b"RIFF", b"fLaC", b"OggS")) or b"\xff" in head
