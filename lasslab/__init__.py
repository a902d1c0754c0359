"""lasslab: separating and editing sound with text, from the STFT to rectified flow.

Conventions, the same everywhere:

- Waveforms are float32 tensors `(..., T)` in [-1, 1]; spectra `(B, F, N)`; mels `(B, 1, M, N)`. Axis letters: B batch,
  C channels, T samples, F bins, N frames, M mels, L text tokens, D embedding width.
- 16 kHz inside. A system is called `system(waveform, words, *, sample_rate=16_000, generator=None)` and returns the
  shape, rate and level it was given.
- Metrics are called `metric(estimate=..., target=...)` and are in dB, more is better.
- Randomness comes from an explicit `torch.Generator` or a seed: same seed, same result.

The names below are what a notebook needs; everything else is imported from its module. They are loaded when first used,
so that `import lasslab` brings in no plotting, widget or Hugging Face code.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "load_audio": "lasslab.signal.audio",
    "save_audio": "lasslab.signal.audio",
    "stft": "lasslab.signal.spectral",
    "istft": "lasslab.signal.spectral",
    "mel_spectrogram": "lasslab.signal.mel",
    "Clip": "lasslab.data.corpora",
    "load_corpus": "lasslab.data.corpora",
    "synthesise": "lasslab.data.synthesis",
    "mix_at_snr": "lasslab.data.mixtures",
    "cosine_similarity": "lasslab.data.mixtures",
    "MixtureDataset": "lasslab.data.mixtures",
    "load_text_encoder": "lasslab.models.text",
    "load_separator": "lasslab.systems.separation",
    "load_editor": "lasslab.systems.editing",
    "evaluate": "lasslab.evaluation.benchmark",
    "fit": "lasslab.training.fit",
    "check": "lasslab.course.exercises",
    "record": "lasslab.course",
    "play": "lasslab.notebook.players",
    "play_many": "lasslab.notebook.players",
}

__all__ = [*_HOMES, "plot", "__version__"]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562)."""
    if name == "plot":
        return importlib.import_module("lasslab.notebook.plots")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'lasslab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
