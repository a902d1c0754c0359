"""The way from waveforms to latents and back: peaks beyond full scale, and which VAE a network was trained with."""

import pytest
import torch

from lasslab.models.checkpoints import save_network, weights_sha256
from lasslab.models.text import NoText
from lasslab.models.vae import SIZES as VAE_SIZES
from lasslab.models.vae import MelVAE
from lasslab.models.velocity import SIZES, VelocityNetwork
from lasslab.models.vocoders import GriffinLim, peak_bound
from lasslab.signal.mel import MelConfig, log_mel_spectrogram
from lasslab.systems import latent
from lasslab.systems.codec import HEADROOM, LatentCodec
from lasslab.systems.separation import load_separator

MEL = MelConfig()


class Plain(torch.nn.Module):
    """A VAE of which no more is asked than its mel."""

    mel = MEL


class Clamping:
    """A vocoder that gives a click of the loudest frame's bound, and knows [-1, 1] only."""

    name, mel = "clamping", MEL

    def __init__(self, share: float) -> None:
        self.share, self.asked = share, []

    def __call__(self, log_mel):
        """(B, M, N) -> (B, N hop)."""
        self.asked.append(log_mel)
        waveform = torch.zeros(len(log_mel), log_mel.shape[-1] * MEL.hop_length)
        waveform[:, 800] = self.share * peak_bound(log_mel, MEL)[:, 0, 0]
        return waveform.clamp(-1, 1)


def vocode(vocoder, log_mel: torch.Tensor) -> torch.Tensor:
    """(B, M, N) -> (B, N hop), at the level that the log-mel says."""
    n_samples = log_mel.shape[-1] * MEL.hop_length
    return LatentCodec(Plain(), vocoder).vocode(log_mel[:, None], torch.ones(1, 1, 1), n_samples=n_samples)[:, 0]


def some_log_mel(peak: float) -> torch.Tensor:
    log_mel = torch.randn(1, 64, 16, generator=torch.Generator().manual_seed(0))
    return log_mel + torch.log(peak / peak_bound(log_mel, MEL))


def test_the_bound_is_exact_for_a_click_and_above_noise_and_tones():
    click = torch.zeros(1, 16_000)
    click[0, 8_000] = 0.5
    assert peak_bound(log_mel_spectrogram(click), MEL).item() == pytest.approx(0.5, rel=0.05)
    noise = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    tone = 0.3 * torch.sin(2 * torch.pi * 1_000 / 16_000 * torch.arange(16_000))[None]
    for sound in (noise, tone):
        assert 1 < (peak_bound(log_mel_spectrogram(sound), MEL) / sound.abs().max()).item() < 10


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("peak", [0.3, 2.0, 9.0])
def test_a_peak_beyond_full_scale_comes_through_a_vocoder_that_clamps(peak, share):
    vocoder = Clamping(share)
    made = vocode(vocoder, some_log_mel(peak))
    assert made[0, 800].item() == pytest.approx(share * peak, rel=1e-4)
    assert len(vocoder.asked) <= 2


def test_only_what_was_clipped_is_made_again():
    vocoder = Clamping(1.0)
    both = torch.cat([some_log_mel(0.3), some_log_mel(5.0)])
    made = vocode(vocoder, both)
    assert made[:, 800].tolist() == pytest.approx([0.3, 5.0], rel=1e-4)
    assert [len(log_mel) for log_mel in vocoder.asked] == [2, 1]
    assert peak_bound(vocoder.asked[1], MEL).item() == pytest.approx(HEADROOM, rel=1e-4)


def test_a_quiet_sound_is_not_touched():
    vocoder = Clamping(0.2)
    log_mel = some_log_mel(0.9)
    vocode(vocoder, log_mel)
    assert torch.equal(vocoder.asked[0], log_mel)


def test_a_network_is_not_used_with_a_vae_trained_anew(tmp_path, monkeypatch):
    torch.manual_seed(0)
    vae = MelVAE(VAE_SIZES["quick"])
    save_network(tmp_path / "vae", vae, {"system": "vae", "network": VAE_SIZES["quick"].to_dict()})
    monkeypatch.setattr(latent, "load_text_encoder", lambda name, device: NoText())
    monkeypatch.setattr(latent, "load_vocoder", lambda name, device: GriffinLim())
    config = {
        "system": "flow",
        "network": SIZES["quick"].to_dict(),
        "vae": str(tmp_path / "vae"),
        "vae_sha256": weights_sha256(vae),
    }
    save_network(tmp_path / "flow", VelocityNetwork(SIZES["quick"]), config)
    assert load_separator(tmp_path / "flow", device="cpu").name == "flow"
    save_network(
        tmp_path / "vae", MelVAE(VAE_SIZES["quick"]), {"system": "vae", "network": VAE_SIZES["quick"].to_dict()}
    )
    with pytest.raises(ValueError, match="config.json: the VAE .* has other weights .* restore it, or train") as raised:
        load_separator(tmp_path / "flow", device="cpu")
    assert "\n" not in str(raised.value)


def test_a_network_is_not_used_with_a_vae_of_other_numbers(tmp_path, monkeypatch):
    """Mean and scale of the spectrograms, and the scale of the latents, are in no weight but in the configuration."""
    torch.manual_seed(0)
    monkeypatch.setattr(latent, "load_text_encoder", lambda name, device: NoText())
    monkeypatch.setattr(latent, "load_vocoder", lambda name, device: GriffinLim())
    vae, space = MelVAE(VAE_SIZES["quick"]), VAE_SIZES["quick"].to_dict()
    config = {
        "system": "flow",
        "network": SIZES["quick"].to_dict(),
        "vae": str(tmp_path / "vae"),
        "vae_sha256": weights_sha256(vae),
        "vae_network": space,
    }
    save_network(tmp_path / "flow", VelocityNetwork(SIZES["quick"]), config)
    save_network(tmp_path / "vae", vae, {"system": "vae", "network": space | {"mel_mean": -5}})  # for -5.0
    assert load_separator(tmp_path / "flow", device="cpu").name == "flow"
    for name, value in (("mel_mean", 0.0), ("mel_scale", 1.0), ("scaling_factor", 1.5)):
        save_network(tmp_path / "vae", vae, {"system": "vae", "network": space | {name: value}})
        words = rf"config.json: the VAE .* has other {name} \({value} against {space[name]}\) than the one this network"
        with pytest.raises(ValueError, match=words) as raised:
            load_separator(tmp_path / "flow", device="cpu")
        assert "\n" not in str(raised.value)
    save_network(tmp_path / "flow", VelocityNetwork(SIZES["quick"]), config | {"vae_network": {}})
    assert load_separator(tmp_path / "flow", device="cpu").name == "flow", "a checkpoint that does not tell"
