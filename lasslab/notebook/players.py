"""Small audio players for notebooks: mono MP3 inside the page, at most a few seconds, levels kept comparable.

Sounds shown together are never normalised one by one: what is louder sounds louder. Only when a sample would
clip are all of them turned down by one common gain, and the caption says so.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def play(waveform: Any, *, sample_rate: int = 16_000, title: str, max_seconds: float = 5.0, caption: str = "") -> None:
    """Show a player for one sound.

    Args:
        waveform: samples (T,) or (C, T), tensor or array; several channels are mixed down.
        sample_rate: Hz.
        title: said above the player and to screen readers.
        max_seconds: longer sounds are cut here, and the caption says so.
        caption: set below the player.

    Raises:
        ValueError: the waveform is empty, has another shape, or holds NaN or infinite samples.
    """
    play_many({title: waveform}, sample_rate=sample_rate, max_seconds=max_seconds, caption=caption)


def play_many(
    sounds: Mapping[str, Any], *, sample_rate: int = 16_000, max_seconds: float = 5.0, caption: str = ""
) -> None:
    """Show players side by side, for sounds to be compared: title -> waveform, otherwise as `play`."""
    from IPython.display import display

    samples = {title: _mono(sound, title) for title, sound in sounds.items()}
    if not samples:
        raise ValueError("nothing to play; give at least one title and waveform")
    clips = {title: sound[: round(max_seconds * sample_rate)] for title, sound in samples.items()}
    gain = common_gain(clips)
    notes = [caption] if caption else []
    if any(clips[title].size < samples[title].size for title in samples):
        notes.append(f"The first {max_seconds:g} s.")
    if gain < 1.0:
        what = "All turned down by the same" if len(clips) > 1 else "Turned down by"
        notes.append(f"{what} {-20 * np.log10(gain):.1f} dB, so that nothing clips.")
    players = "".join(_player(title, to_mp3(gain * clip, sample_rate=sample_rate)) for title, clip in clips.items())
    below = f'<div style="font-size:90%;opacity:.8">{html.escape(" ".join(notes))}</div>' if notes else ""
    page = f'<div style="display:flex;flex-wrap:wrap;gap:4px 20px">{players}</div>{below}'
    display({"text/html": page, "text/plain": f"[sound] {', '.join(sounds)}"}, raw=True)


def common_gain(sounds: Mapping[str, np.ndarray]) -> float:
    """Return the one gain for all sounds: 1, or what brings the highest peak down to 1."""
    peak = max(float(np.abs(sound).max(initial=0.0)) for sound in sounds.values())
    return 1.0 if peak <= 1.0 else 1.0 / peak


def to_mp3(samples: np.ndarray, *, sample_rate: int) -> bytes:
    """Encode mono samples (T,) in [-1, 1] as a small MP3 of variable bit rate.

    Args:
        samples: (T,).
        sample_rate: Hz, one that MP3 knows.

    Returns:
        The file's bytes.

    Raises:
        ValueError: MP3 has no such sample rate.
    """
    import soundfile

    if sample_rate not in MP3_RATES:
        raise ValueError(f"MP3 has no sample rate of {sample_rate} Hz; resample to 16000 first")
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="MP3", bitrate_mode="VARIABLE", compression_level=0.6)
    return file.getvalue()


def _mono(sound: Any, title: str) -> np.ndarray:
    if hasattr(sound, "detach"):
        sound = sound.detach().cpu().numpy()
    samples = np.asarray(sound, dtype=np.float32)
    if samples.ndim not in (1, 2) or not samples.size:
        raise ValueError(f"sound {title!r} must be (T,) or (C, T) and not empty, got shape {samples.shape}")
    if not np.isfinite(samples).all():
        raise ValueError(f"sound {title!r} has NaN or infinite samples; find where they come from")
    return samples if samples.ndim == 1 else samples.mean(axis=0)


def _player(title: str, mp3: bytes) -> str:
    source = f"data:audio/mpeg;base64,{base64.b64encode(mp3).decode('ascii')}"
    name = html.escape(title)
    return (
        f'<div><div style="font-weight:600">{name}</div>'
        f'<audio controls preload="metadata" style="width:250px" src="{source}" '
        f'aria-label="{name}" title="{name}"></audio></div>'
    )
