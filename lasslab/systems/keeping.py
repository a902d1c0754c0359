"""What a system leaves alone is not made anew: there the recording itself is handed on.

A system in a latent space makes the whole recording again, and VAE and vocoder cost something everywhere: also where an
instruction has nothing to say, or where the sound asked for is all that the mixture holds. The decoder tells where that
is. With D the VAE's decoder, z_o the latent of the recording and z_e what the network has made,

    d = | log D(z_e) - log D(z_o) |      in each band and frame, averaged over 3 x 3 of them, in dB                 (1)
    w = d / keep - 1, within [0, 1]      0 up to a change of `keep` dB, 1 from twice as much on                     (2)
    out = w * vocoder(D(z_e)) + (1 - w) * recording      in the bins of the STFT                                    (3)

What the VAE loses it loses on both sides of (1), so that only the change is left. FlowSep, RFM-Editing and AUDIT do not
do this; `keep` = 0 is their way. Blending under a mask that the model finds itself is known from images (DiffEdit).

Reference: Couairon et al., "DiffEdit: diffusion-based semantic image editing with mask guidance", ICLR 2023.
Notebook 15.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lasslab.signal.audio import fit_length
from lasslab.signal.mel import DB_PER_NAT, MelConfig, mask_to_bins
from lasslab.signal.spectral import istft, n_frames, stft
from lasslab.systems.windows import in_pieces

INAUDIBLE_DB = 60.0  # below the loudest point of both: what happens there is no change
NEIGHBOURS = 3  # bands and frames that (1) is averaged over


def change_db(made: Tensor, original: Tensor) -> Tensor:
    """Equation (1).

    Args:
        made, original: log-mels of one decoder (..., M, N), in nats.

    Returns:
        How far they are apart, in dB, (..., M, N).
    """
    loudest = torch.maximum(made, original).amax(dim=(-2, -1), keepdim=True)
    made, original = (log_mel.clamp(min=loudest - INAUDIBLE_DB / DB_PER_NAT) for log_mel in (made, original))
    change = DB_PER_NAT * (made - original).abs()
    smooth = F.avg_pool2d(
        change.reshape(-1, 1, *change.shape[-2:]), NEIGHBOURS, 1, NEIGHBOURS // 2, count_include_pad=False
    )
    return smooth.reshape(change.shape)


def keep_unchanged(
    made: Tensor, original: Tensor, change: Tensor, *, keep_db: float, mel: MelConfig, size: int, context: int
) -> Tensor:
    """Equations (2) and (3).

    Args:
        made: what the vocoder made (B, T).
        original: (B, T).
        change: of equation (1), (B, M, N), with N hop_length >= T.
        keep_db: `keep`, above 0.
        mel: the bands of `change`.
        size: frames that are blended at once, so that a long recording needs no more memory.
        context: frames heard on either side of a piece.

    Returns:
        (B, T): the original itself where nothing changes.
    """
    weight = (change / keep_db - 1).clamp(0, 1)
    frames = (fit_length(part, weight.shape[-1] * mel.hop_length) for part in (made, original))
    columns = [part.unflatten(-1, (-1, mel.hop_length)).mT for part in frames]  # (B, hop, N): cut where weights are

    def blend(columns: Tensor) -> Tensor:
        *parts, weight = columns.split([mel.hop_length, mel.hop_length, mel.n_mels], dim=-2)
        made, original = (part.mT.flatten(-2) for part in parts)
        spectra = [stft(part, n_fft=mel.n_fft, hop_length=mel.hop_length) for part in (made, original)]
        behind = n_frames(made.shape[-1], mel.hop_length) - weight.shape[-1]  # frames centred beyond the end
        weight = mask_to_bins(F.pad(weight, (0, behind), mode="replicate"), mel)
        blended = weight * spectra[0] + (1 - weight) * spectra[1]
        return istft(blended, n_fft=mel.n_fft, hop_length=mel.hop_length, length=made.shape[-1])

    blended = in_pieces(blend, torch.cat([*columns, weight], dim=-2), size=size, context=context, factor=mel.hop_length)
    return blended[..., : made.shape[-1]]
