"""What every vocoder here shares: the call, the mel spectrogram it reads, and the last touch.

A vocoder is an object with `.name` and `.mel` (a `MelConfig`), called `vocoder(log_mel (B, M, N)) -> (B, N * hop)`;
sample n * hop is the centre of frame n, as in `lasslab.signal.mel`.

`match_mel` is that last touch. A network's waveform has a mel spectrogram a little off the one it was given. Its STFT is
multiplied by the ratio of the two, spread over the bins, and turned back into a waveform, a few times over: phases and
what lies within a mel band stay the network's own, the level of every band and frame becomes the one asked for.

Notebook 10.
"""

import torch.nn.functional as F
from torch import Tensor

from lasslab.signal.mel import MelConfig, mask_to_bins, mel_filterbank
from lasslab.signal.spectral import istft, stft


def match_mel(waveform: Tensor, log_mel: Tensor, config: MelConfig | None = None, *, n_iter: int = 1) -> Tensor:
    """Bring the mel spectrogram of a waveform nearer to the one asked for.

    X <- X * spread(mel / max(W |X|, floor)),  spread(g)[k] = sum_m W[m, k] g[m] / sum_m W[m, k],

    then to a waveform and back, n_iter times. The gains are not a magnitude that the waveform must take, as in
    Griffin-Lim: within a band the spectrum keeps its shape, and no phase is computed, so a repetition costs less than
    half. Where the mel asked for lies on the floor, a band is only ever turned down.

    Differentiable.

    Args:
        waveform: (B, N hop).
        log_mel: natural logarithm of mel magnitudes, (B, M, N).
        config: what the mel was made with; MelConfig() when left out.
        n_iter: repetitions; 0 leaves the waveform as it is.

    Returns:
        Samples, (B, N hop).

    Raises:
        ValueError: the shapes do not belong together.

    Notebook: 10.
    """
    config = config or MelConfig()
    n_samples = log_mel.shape[-1] * config.hop_length
    if waveform.shape[-1] != n_samples:
        raise ValueError(
            f"{log_mel.shape[-1]} frames at hop_length {config.hop_length} are {n_samples} samples, the waveform has "
            f"{waveform.shape[-1]}: pass the waveform that was made from this mel"
        )
    wanted = F.pad(log_mel, (0, 1), mode="replicate").exp()  # the STFT has a frame centred on the end
    filters = mel_filterbank(config).to(waveform)
    for _ in range(n_iter):
        spectrum = stft(waveform, n_fft=config.n_fft, hop_length=config.hop_length)  # (B, F, N + 1)
        present = filters @ (spectrum.real.square() + spectrum.imag.square() + 1e-20).sqrt()
        gain = mask_to_bins(wanted / present.clamp_min(config.floor), config)
        waveform = istft(spectrum * gain, n_fft=config.n_fft, hop_length=config.hop_length, length=n_samples)
    return waveform


def mel_distance(*, estimate: Tensor, target: Tensor) -> Tensor:
    """mean |log mel - log mel_hat| in nats of log-mels (B, M, N), one value per example (B,). 0.115 nats are 1 dB."""
    return (estimate - target).abs().mean(dim=(-2, -1))
