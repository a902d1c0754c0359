"""The exercises of notebook 09: right answers pass, stubs are not done, wrong ones get the right hint."""

import math

import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from lasslab.course.exercises import evaluate_answer
from lasslab.models.vae import Posterior

SILENCE = math.log(1e-5)


def kl(mean, log_variance):
    return (mean**2 + log_variance.exp() - 1 - log_variance).flatten(1).mean(1) / 2


def kl_by_library(mean, log_variance):
    return kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).flatten(1).mean(1)


def latent_kls(variances, beta):
    return (variances / beta).log().clamp(min=0) / 2


def pad(log_mel, multiple):
    return F.pad(log_mel, (0, -log_mel.shape[-1] % multiple), value=SILENCE)


def pad_by_cat(log_mel, multiple):
    while log_mel.shape[-1] % multiple:
        log_mel = torch.cat([log_mel, torch.full_like(log_mel[..., :1], -11.513)], dim=-1)
    return log_mel


def scaling_factor(latents):
    return 1 / torch.cat([latent.flatten() for latent in latents]).std()


def scaling_factor_by_moments(latents):
    n = sum(latent.numel() for latent in latents)
    mean = sum(latent.sum().item() for latent in latents) / n
    return (sum(latent.square().sum().item() for latent in latents) / n - mean**2) ** -0.5


RIGHT = {
    "09.kl": [kl, kl_by_library, lambda mean, log_variance: Posterior(mean, log_variance).kl()],
    "09.latent_kls": [latent_kls, lambda v, beta: [max(0.0, math.log(x / beta) / 2) for x in v.tolist()]],
    "09.pad": [pad, pad_by_cat],
    "09.scaling_factor": [scaling_factor, scaling_factor_by_moments],
}


def each_std(latents):
    return 1 / torch.stack([latent.std() for latent in latents]).mean()


def channel_std(latents):
    return 1 / torch.cat([latent.transpose(0, 1).flatten(1) for latent in latents], dim=1).std(dim=1).mean()


WRONG = [
    ("09.kl", lambda m, v: 2 * kl(m, v), "mind the half"),
    ("09.kl", lambda m, v: kl(m, v) * m[0].numel(), "average, do not add up"),
    ("09.kl", lambda m, v: kl(m.abs().sqrt(), v), "the square"),
    ("09.kl", lambda m, v: kl(m, v).mean(), "for each latent of the batch"),
    ("09.kl", lambda m, v: (m**2 + v.exp() - 1 - v) / 2, "for each latent of the batch"),
    ("09.kl", lambda m, v: (m**2 + v.exp() - v).flatten(1).mean(1) / 2, "four terms cancel"),
    ("09.kl", lambda m, v: kl(m, 2 * v), "log sigma^2"),
    ("09.kl", lambda m, v: (m**2 + (2 * v).exp() - 1 - v).flatten(1).mean(1) / 2, "its exponential"),
    ("09.kl", lambda m, v: kl(m, v.flatten(1).mean(1).reshape(-1, 1, 1, 1).expand_as(v)), "number by number"),
    ("09.latent_kls", lambda v, beta: (v / beta).log() / 2, "never negative"),
    ("09.latent_kls", lambda v, beta: (v / beta).log().clamp(min=0), "Half the natural logarithm"),
    ("09.latent_kls", lambda v, beta: (1 + v / beta).log() / 2, "no 1 + inside"),
    ("09.latent_kls", lambda v, beta: (v / beta).log2().clamp(min=0) / 2, "not bits"),
    ("09.latent_kls", lambda v, beta: latent_kls(v, beta).sum(), "do not add them up"),
    ("09.pad", lambda x, n: F.pad(x, (0, -x.shape[-1] % n)), "Zero is loud"),
    ("09.pad", lambda x, n: F.pad(x, (0, n - x.shape[-1] % n), value=SILENCE), "needs no frame more"),
    ("09.pad", lambda x, n: F.pad(x, (0, -x.shape[-1] % n), mode="replicate"), "whatever the sound ends with"),
    ("09.pad", lambda x, n: F.pad(x, (0, -x.shape[-1] % n), value=-5.0), "natural logarithm of 1e-5"),
    ("09.pad", lambda x, n: F.pad(x, (-x.shape[-1] % n, 0), value=SILENCE), "at the end"),
    ("09.pad", lambda x, n: x[..., : x.shape[-1] // n * n], "next multiple"),
    ("09.pad", lambda x, n: F.pad(x, (0, 0, 0, -x.shape[-1] % n), value=SILENCE), "Only the last axis"),
    ("09.scaling_factor", lambda latents: 1 / scaling_factor(latents), "its inverse"),
    ("09.scaling_factor", lambda latents: scaling_factor(latents) ** 2, "not 1 / variance"),
    ("09.scaling_factor", lambda z: torch.cat([x.flatten() for x in z]).square().mean() ** -0.5, "around the mean"),
    ("09.scaling_factor", each_std, "all numbers together"),
    ("09.scaling_factor", channel_std, "neither their lengths"),
    ("09.scaling_factor", lambda z: 1 / torch.cat([x.transpose(0, 1).flatten(1) for x in z], 1).std(1), "One factor"),
]


def test_an_error_is_told_in_words():
    result = evaluate_answer("09.scaling_factor", lambda latents: 1 / latents.std())
    assert not result.passed and "AttributeError" in result.got
