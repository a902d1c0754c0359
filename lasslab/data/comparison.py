"""What the cosine filter computes for every candidate pair, again and again in the same memory.

For each pair two spectrograms are made, compared and thrown away. Where new memory is taken for each of them, the
operating system clears it first, and that costs as much as the Fourier transforms: here it is taken once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lasslab.signal.levels import snr_gain
from lasslab.signal.spectral import HOP_LENGTH, N_FFT, hann_window, n_frames


class PairComparison:
    """Cosines of the magnitudes of mixture and target, `cosine_similarity(|X|, |S|)`, for blocks of pairs.

    Not for two threads at a time: they would write to the same memory.

    Args:
        n_pairs: most pairs of a block; few enough that their spectrograms stay in a processor's cache.
        n_samples: length T of every clip.
        device: where spectrograms are computed.
    """

    def __init__(self, n_pairs: int, n_samples: int, *, device: torch.device | str = "cpu") -> None:
        frames = n_frames(n_samples, HOP_LENGTH)
        self.n_samples = n_samples
        self.window = hann_window(N_FFT).to(device)
        self.interference = torch.zeros(n_pairs, n_samples, device=device)
        # mixtures and targets, with the silence around them that the outer frames see
        self.padded = torch.zeros(2, n_pairs, (frames - 1) * HOP_LENGTH + N_FFT, device=device)
        self.frames = torch.zeros(2, n_pairs, frames, N_FFT, device=device)
        self.spectra = torch.zeros(2, n_pairs, frames, N_FFT // 2 + 1, dtype=torch.complex64, device=device)
        self.power = torch.zeros(self.spectra.shape, device=device)

    def __call__(self, targets: Sequence[Tensor], interferences: Sequence[Tensor], snr_db: Sequence[Tensor]) -> Tensor:
        """Compare.

        Args:
            targets: up to `n_pairs` clips (T,).
            interferences: as many (T,).
            snr_db: of each pair ().

        Returns:
            Cosines (B,), on the CPU. That `mix_at_snr` scales a mixture which would clip changes no cosine.

        Raises:
            ValueError: see `lasslab.signal.levels.snr_gain`.
        """
        n_pairs = len(targets)
        inside = self.padded[:, :n_pairs, N_FFT // 2 : N_FFT // 2 + self.n_samples]
        mixture, target, interference = *inside, self.interference[:n_pairs]
        for number in range(n_pairs):
            target[number], interference[number] = targets[number], interferences[number]
        gain = snr_gain(target, interference, snr_db=torch.stack(list(snr_db)).to(target))
        torch.addcmul(target, interference, gain, out=mixture)
        # as `stft` and `cosine_similarity` do, in place
        frames, spectra, power = self.frames[:, :n_pairs], self.spectra[:, :n_pairs], self.power[:, :n_pairs]
        torch.mul(self.padded[:, :n_pairs].unfold(-1, N_FFT, HOP_LENGTH), self.window, out=frames)
        torch.fft.rfft(frames, out=spectra)
        parts = torch.view_as_real(spectra).square_()  # together: one at a time, every second number is passed over
        torch.add(parts[..., 0], parts[..., 1], out=power)
        norms = power.sum((-2, -1)).prod(0).sqrt()
        # |X| |S| = sqrt(|X|^2 |S|^2): one root a bin, not two
        products = torch.mul(*power, out=power[0]).sqrt_().sum((-2, -1))
        return (products / norms.clamp(min=torch.finfo(norms.dtype).tiny)).cpu()
