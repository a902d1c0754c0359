"""The mel VAE: sizes, AudioLDM's layout, silence as padding, the posterior's closed forms, loading and refusing."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lasslab.models.checkpoints import save_network
from lasslab.models.vae import SIZES, MelVAE, Posterior, VAEConfig, audioldm_config, load_vae
from lasslab.signal.mel import MelConfig, log_mel_spectrogram

SILENCE = math.log(1e-5)
TINY = VAEConfig(channels=(4, 8), latent_channels=3, n_mels=16, f_max=8000.0)


def tiny(**changes) -> MelVAE:
    torch.manual_seed(0)
    return MelVAE(replace(TINY, **changes)).eval()


def log_mels(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers in the range of log-mels, -11.5 to about 1."""
    return SILENCE + 12.5 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


# --- sizes and shapes


def test_the_full_size_is_audioldm_s_to_the_parameter():
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in MelVAE(config).parameters()) for name, config in SIZES.items()}
    assert counts["full"] == 55_376_873
    assert [round(counts[name] / 1e6, 1) for name in SIZES] == [0.2, 1.4, 55.4], "what the module says of its sizes"


def test_every_size_makes_the_paper_s_latent():
    """FlowSep: 10.24 s, 1024 frames of 64 mels, become 8 channels of 256 x 16."""
    for config in SIZES.values():
        with torch.device("meta"):
            vae = MelVAE(config)
            latent = vae.encode(torch.empty(1, 64, 1024))
            assert latent.shape == (1, 8, 256, 16)
            assert vae.decode(latent).shape == (1, 64, 1024)
        assert vae.mel == MelConfig()


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 3), st.integers(1, 70))
def test_any_number_of_frames(batch, n_frames):
    vae, x = tiny(), log_mels(batch, 16, n_frames, seed=n_frames)
    latent = vae.encode(x)
    assert latent.shape == (batch, 3, -(-n_frames // 4), 4) and latent.isfinite().all()
    assert vae.decode(latent).shape == (batch, 16, 4 * latent.shape[2])
    assert vae.decode(latent, n_frames=n_frames).shape == x.shape
    assert vae(x)[0].shape == x.shape


def test_frames_are_added_as_silence_not_as_zeros():
    """A log-mel of 0 is a magnitude of 1 in every band: a bang at the end of most clips."""
    vae, x = tiny(), log_mels(2, 16, 13)
    with_silence, with_zeros = (torch.cat([x, torch.full((2, 16, 3), value)], dim=-1) for value in (SILENCE, 0.0))
    assert torch.equal(vae.encode(x), vae.encode(with_silence))
    assert not torch.allclose(vae.encode(x), vae.encode(with_zeros), atol=1e-3)
    assert vae.silence == pytest.approx(-11.51, abs=0.01)
    silent = log_mel_spectrogram(torch.zeros(1, 1600), vae.mel)
    assert silent.unique().tolist() == pytest.approx([vae.silence])


def test_no_output_is_below_silence_but_training_may_pass_it():
    vae = tiny()
    with torch.no_grad():
        vae.blocks.decoder.conv_out.bias.fill_(-20.0)
    latent = randn(1, 3, 4, 4)
    assert vae.decode(latent).min().item() == pytest.approx(vae.silence)
    vae.train()
    assert vae.decode(latent).max() < vae.silence
    vae.decode(latent).mean().backward()
    assert vae.blocks.decoder.conv_out.bias.grad.abs().min() > 0, "a hard floor would have no slope"


@pytest.mark.parametrize("shape", [(16, 8), (1, 15, 8), (1, 8, 16), (1, 16, 0), (1, 1, 16, 8)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected log-mels \(B, 16, N\)") as error:
        tiny().encode(torch.zeros(shape))
    assert str(shape) in one_line(error)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"channels": ()}, "positive"),
        ({"channels": (4, 0)}, "positive"),
        ({"n_res_blocks": 0}, "positive"),
        ({"n_res_blocks": 10**30}, "at most 64 residual blocks"),
        ({"scaling_factor": 0.0}, "scales must be positive"),
        ({"scaling_factor": float("nan")}, "scales must be positive"),
        ({"mel_scale": -1.0}, "scales must be positive"),
        ({"patch": 1}, "2 times smaller: it is 4"),
        ({"channels": (4, 8, 8)}, "8 times smaller: it is 4"),
        ({"n_mels": 30}, "multiple of 4"),
        ({"f_max": 9000.0}, "f_max"),
    ],
)
def test_impossible_sizes_are_refused(changes, words):
    with pytest.raises(ValueError, match=words) as error:
        replace(TINY, **changes)
    one_line(error)


# --- the posterior


def test_kl_equals_torch_s_closed_form():
    mean, log_variance = randn(4, 3, 5, 2), randn(4, 3, 5, 2, seed=1)
    found = Posterior(mean, log_variance).kl()
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).flatten(1).mean(1)
    torch.testing.assert_close(found, expected)
    standard = Posterior(torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)).kl()
    assert standard.tolist() == [0, 0]
    shifted = Posterior(torch.full((1, 1, 1, 1), 3.0), torch.zeros(1, 1, 1, 1)).kl()
    assert shifted.item() == pytest.approx(4.5), "mu^2 / 2"


def test_samples_have_the_posterior_s_mean_and_variance():
    posterior = Posterior(torch.full((1, 1, 200, 200), 0.7), torch.full((1, 1, 200, 200), math.log(0.09)))
    drawn = posterior.sample(torch.Generator().manual_seed(0))
    assert drawn.mean().item() == pytest.approx(0.7, abs=5 * 0.3 / 200)
    assert drawn.std().item() == pytest.approx(0.3, rel=0.02)
    again, other = (posterior.sample(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.equal(drawn, again) and not torch.equal(drawn, other)


def test_a_generator_draws_and_without_one_it_is_the_mean():
    vae, x = tiny(scaling_factor=0.5), log_mels(2, 16, 8)
    posterior = vae.posterior(x)
    assert torch.equal(vae.encode(x), posterior.mean * 0.5)
    drawn = vae.encode(x, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn, posterior.sample(torch.Generator().manual_seed(3)) * 0.5)
    assert not torch.allclose(drawn, posterior.mean * 0.5)


def test_forward_is_encoding_and_decoding():
    vae, x = tiny(scaling_factor=0.37), log_mels(2, 16, 10)
    estimate, posterior = vae(x)
    torch.testing.assert_close(estimate, vae.decode(vae.encode(x), n_frames=10))
    torch.testing.assert_close(posterior.mean, vae.posterior(x).mean)


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_the_scaling_factor_scales_latents_and_nothing_else(scale):
    """Two checkpoints that differ in the factor only: proportional latents, the same spectrograms."""
    plain, scaled, x = tiny(), tiny(scaling_factor=scale), log_mels(2, 16, 8)
    torch.testing.assert_close(scaled.encode(x), scale * plain.encode(x))
    torch.testing.assert_close(scaled.decode(scaled.encode(x)), plain.decode(plain.encode(x)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scaled(x)[0], plain(x)[0], rtol=1e-4, atol=1e-4)


# --- AudioLDM's layout


def audioldm_blocks(**changes):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    settings = {
        "in_channels": 1,
        "out_channels": 1,
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (8, 8, 8),
        "layers_per_block": 1,
        "latent_channels": 2,
        "norm_num_groups": 4,
        "scaling_factor": 0.9227914,
    }
    return AutoencoderKL(**settings | changes).eval()


def save_audioldm(folder: Path, **changes) -> Path:
    audioldm_blocks(**changes).save_pretrained(folder / "vae")
    return folder


def change_json(folder: Path, **changes) -> None:
    path = folder / "vae" / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def test_a_folder_in_audioldm_s_layout_is_a_plain_autoencoder_on_time_by_mel(tmp_path):
    vae, blocks = load_vae(save_audioldm(tmp_path)), audioldm_blocks()
    x = log_mels(2, 64, 12)
    with torch.no_grad():
        distribution = blocks.encode(x.mT[:, None]).latent_dist  # (B, 1, N, M)
        z = distribution.mode() * blocks.config.scaling_factor
        decoded = blocks.decode(z / blocks.config.scaling_factor).sample[:, 0].mT
    latent = vae.encode(x)
    assert latent.shape == (2, 2, 3, 16)
    torch.testing.assert_close(latent, z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vae.decode(latent), decoded.clamp(min=SILENCE), rtol=1e-4, atol=1e-4)
    assert vae.posterior(x).kl() == pytest.approx(distribution.kl() / z[0].numel(), rel=1e-4)
    assert not vae.training and not any(p.requires_grad for p in vae.parameters())
    assert vae.mel == MelConfig() and vae.config.mel_mean == 0 and vae.config.mel_scale == 1


def test_its_scaling_factor_is_read_and_never_assumed(tmp_path):
    """AudioLDM's checkpoints differ in it; diffusers fills in that of an image model, 0.18215, where there is none."""
    folder, x = save_audioldm(tmp_path), log_mels(1, 64, 8)
    latents, decoded = [], []
    for factor in (0.2, 0.9):
        change_json(folder, scaling_factor=factor)
        vae = load_vae(folder)
        assert vae.config.scaling_factor == factor
        latents.append(vae.encode(x))
        decoded.append(vae.decode(latents[-1]))
    torch.testing.assert_close(latents[1], latents[0] * 4.5)
    torch.testing.assert_close(decoded[1], decoded[0], rtol=1e-4, atol=1e-4)
    change_json(folder, scaling_factor=None)
    with pytest.raises(ValueError, match="no scaling_factor.*never assumed") as error:
        load_vae(folder)
    assert str(folder) in one_line(error)
    with pytest.raises(ValueError, match="no scaling_factor"):
        audioldm_config({"in_channels": 1, "out_channels": 1})


def edit_weights(folder: Path, change) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


NORM = "decoder.conv_norm_out.weight"


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda tensors: tensors.pop(NORM), NORM),
        (lambda tensors: tensors.update(strange=torch.zeros(2)), "strange"),
        (lambda tensors: tensors.update({NORM: torch.zeros(9)}), NORM),
        (lambda tensors: tensors[NORM].fill_(float("nan")), f"{NORM}.*NaN"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_never_drawn_at_random(tmp_path, capfd, change, words):
    folder = save_audioldm(tmp_path)
    edit_weights(folder, change)
    with pytest.raises(ValueError, match=words) as error:
        load_vae(folder)
    assert str(folder) in one_line(error)
    assert capfd.readouterr().err == "", "all is said in one line"


def test_other_broken_folders_are_refused(tmp_path):
    folder = save_audioldm(tmp_path)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    for broken in (content[: len(content) // 2], b"", b"\x80pickle"):
        weights.write_bytes(broken)
        with pytest.raises(ValueError, match="cannot be loaded") as error:
            load_vae(folder)
        assert str(folder) in one_line(error)
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_vae(folder)
    for changes, words in (({"in_channels": 3}, "one channel"), ({"block_out_channels": [8, 8]}, "times smaller")):
        folder = save_audioldm(tmp_path / "other")
        change_json(folder, **changes)
        with pytest.raises(ValueError, match=words) as error:
            load_vae(folder)
        assert str(folder) in one_line(error)


def test_the_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    import huggingface_hub

    def unreachable(*_, **__):
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(ValueError, match=r"cvssp/audioldm-s-full-v2 cannot be loaded \(no route\)") as error:
        load_vae("cvssp/audioldm-s-full-v2")
    one_line(error)


# --- our own checkpoints


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LASSLAB_CHECKPOINTS", str(tmp_path))
    save_network(
        tmp_path / "tiny", tiny(scaling_factor=0.4), {"system": "vae", "network": replace(TINY, scaling_factor=0.4)}
    )
    return tmp_path


def edit_config(root: Path, **changes) -> None:
    path = root / "tiny" / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def test_a_saved_vae_loads_alike(root):
    x = log_mels(2, 16, 10)
    expected = tiny(scaling_factor=0.4).encode(x)
    for name in ("tiny", root / "tiny"):
        vae = load_vae(name)
        assert vae.config == replace(TINY, scaling_factor=0.4) and not vae.training
        torch.testing.assert_close(vae.encode(x), expected)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"system": "mask"}, "'mask', expected 'vae'"),
        ({"system": None}, "expected 'vae'"),
        ({"network": None}, "with a network"),
        ({"colour": "blue"}, "unknown fields colour"),
        ({"network": {"channels": [4, "x"]}}, "refuses|channels"),
        ({"network": {"scaling_factor": -1.0}}, "scales must be positive"),
        ({"network": {"width": 3}}, "unknown fields width"),
        ({"network": {"channels": [6, 7]}}, "weights|sizes"),
        ({"network": {}}, "weights"),
    ],
)
def test_a_wrong_config_is_named(root, changes, words):
    edit_config(root, **changes)
    with pytest.raises(ValueError, match=words) as error:
        load_vae("tiny")
    assert str(root / "tiny") in one_line(error)


def test_missing_checkpoints_and_pickles_are_refused(root):
    with pytest.raises(ValueError, match="'tinny'.*tiny") as error:
        load_vae("tinny")
    one_line(error)
    weights = root / "tiny" / "model.safetensors"
    weights.write_bytes(b"\x80pickle")
    with pytest.raises(ValueError, match="pickle") as error:
        load_vae("tiny")
    one_line(error)


# --- learning


def test_a_few_steps_lower_the_loss_of_one_batch():
    torch.manual_seed(0)
    vae, x = MelVAE(replace(TINY, channels=(8, 16))).train(), log_mels(2, 16, 16)
    optimiser = torch.optim.Adam(vae.parameters(), lr=3e-3)
    losses = []
    for step in range(25):
        estimate, posterior = vae(x, torch.Generator().manual_seed(step))
        loss = (estimate - x).abs().mean() + 0.01 * posterior.kl().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None for p in vae.parameters()), "every weight takes part"


def test_a_posterior_of_any_shape_has_a_kl():
    mean, log_variance = torch.randn(3, 5), torch.randn(3, 5)
    flat = Posterior(mean, log_variance)
    image = Posterior(mean.reshape(3, 5, 1, 1), log_variance.reshape(3, 5, 1, 1))
    assert torch.allclose(flat.kl(), image.kl()) and torch.allclose(image.channel_kl().mean(1), image.kl())


def test_what_was_never_downloaded_is_said_to_be_so(monkeypatch, tmp_path, capfd):
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    download = partial(huggingface_hub.hf_hub_download, cache_dir=tmp_path)  # an empty one
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(ValueError, match="the VAE of cvssp/audioldm-s-full-v2 is not on this machine") as error:
        load_vae("cvssp/audioldm-s-full-v2")
    assert "hf download cvssp/audioldm-s-full-v2 --include 'vae/*'" in one_line(error)
    assert capfd.readouterr().err == "", "all is said in one line"
