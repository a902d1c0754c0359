"""Train a vocoder: the log-mel of a sound in, the sound out, judged by mel spectrograms and, later on, an adversary.

    loss = mel + w_a adversarial + w_f features
    mel  = mean over scales of mean |log mel(s) - log mel(s_hat)|

The mel loss is multi-scale: frames of 128 to 2,048 samples, where BigVGAN's first version has one. It teaches levels
and time within minutes and says nothing of phase and of what lies within a band; that is the adversary's part, from
step `adversary_from` on. Before it, a step costs half.

`lasslab train vocoder`. Notebook 10.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lasslab.data.mixtures import MixtureDataset, mix_at_snr
from lasslab.models import bigvgan, discriminators
from lasslab.models.bigvgan import BigVGAN
from lasslab.models.discriminators import Discriminators, adversarial_loss, feature_loss, judge_both
from lasslab.models.vocoders import match_mel, mel_distance
from lasslab.signal.audio import SAMPLE_RATE, fit_length
from lasslab.signal.mel import MelConfig, griffin_lim, log_mel_spectrogram, mel_filterbank, mel_to_magnitude
from lasslab.signal.spectral import stft
from lasslab.training.fit import Adversary, FitResult, check_at_least, check_positive, check_shares
from lasslab.training.runs import check_folder, fit_recipe, start_weights
from lasslab.training.sounds import SoundRecipe, check_size, collated, drawn_mixtures, held_out_clips

#: (n_fft, hop_length, n_mels) of the mel loss; the third is the one vocoders read
SCALES = ((128, 32, 10), (512, 128, 40), (1024, 160, 64), (2048, 512, 128))


class MultiScaleMel:
    """mean |log mel(s) - log mel(s_hat)|, averaged over scales.

    Args:
        mel: of the vocoder: rate, range of frequencies and floor of all scales.
    """

    def __init__(self, mel: MelConfig) -> None:
        self.floor = mel.floor
        self.filters = {
            (n_fft, hop_length): mel_filterbank(
                MelConfig(mel.sample_rate, n_fft, hop_length, n_mels, mel.f_min, mel.f_max, mel.floor)
            )
            for n_fft, hop_length, n_mels in SCALES
        }

    def __call__(self, *, estimate: Tensor, target: Tensor) -> Tensor:
        """The distance of waveforms (B, T), in nats, a scalar."""
        total = 0.0
        for (n_fft, hop_length), filters in self.filters.items():
            real, made = (
                self._log_mel(waveform, filters.to(waveform), n_fft, hop_length) for waveform in (target, estimate)
            )
            total = total + (real - made).abs().mean()
        return total / len(self.filters)

    def _log_mel(self, waveform: Tensor, filters: Tensor, n_fft: int, hop_length: int) -> Tensor:
        spectrum = stft(waveform, n_fft=n_fft, hop_length=hop_length)
        magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-20).sqrt()  # with a slope at 0
        return (filters @ magnitude).clamp_min(self.floor).log()


class Vocoding:
    """Train a vocoder. Batches are those of `MixtureDataset`.

    A share of the sounds is a mixture of two, since it must vocode those too; levels vary, and some sounds hold a span
    of digital silence.

    Args:
        mel: spectrogram the vocoder reads.
        mixtures: share of the sounds that are mixtures.
        silences: share of the sounds with a span of silence.
        gain_db: peaks lie this far below full scale at most.
        adversarial, features: weights of the adversary's terms beside the mel loss.
        corrections: of `match_mel`, in the validation's second figure.
    """

    monitor = "mel_similarity"

    def __init__(
        self,
        mel: MelConfig,
        *,
        mixtures: float = 0.4,
        silences: float = 0.15,
        gain_db: float = 40.0,
        adversarial: float = 0.03,
        features: float = 0.2,
        corrections: int = 12,
    ) -> None:
        self.mel, self.distance = mel, MultiScaleMel(mel)
        self.mixtures, self.silences, self.gain_db = mixtures, silences, gain_db
        self.adversarial, self.features, self.corrections = adversarial, features, corrections
        self.last: dict[str, Tensor] = {}  # what the last `loss` made, for `adversary_loss`

    def sounds(self, batch: dict, generator: torch.Generator) -> Tensor:
        """The sounds of a batch (B, T): single or mixed, at any level, some with a silent span."""
        target, n_samples = batch["target"], batch["target"].shape[-1]
        uniform = torch.rand(5, len(target), 1, generator=generator, device=generator.device).to(target)
        mixed = mix_at_snr(target, batch["interference"], snr_db=batch["snr_db"]).mixture
        sound = torch.where(uniform[0] < self.mixtures, mixed, target)
        peak = sound.abs().amax(dim=-1, keepdim=True).clamp_min(1e-6)
        sound = sound / peak * 10 ** (-self.gain_db * uniform[1] / 20)
        start, stop = (uniform[2:4] * n_samples).sort(dim=0).values
        time = torch.arange(n_samples, device=sound.device)
        silent = (uniform[4] < self.silences) & (time >= start) & (time < stop)
        return sound.masked_fill(silent, 0.0)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """(B, T) -> (B, M, T / hop): the frame centred on the end is left out."""
        return log_mel_spectrogram(waveform, self.mel)[..., : waveform.shape[-1] // self.mel.hop_length]

    def vocode(self, network: nn.Module, log_mel: Tensor) -> Tensor:
        """(B, M, N) -> (B, N hop), in float32."""
        return fit_length(network(log_mel).float(), log_mel.shape[-1] * self.mel.hop_length)

    def loss(
        self, network: nn.Module, batch: dict, generator: torch.Generator, adversary: nn.Module | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The module's loss, and its parts."""
        real = self.sounds(batch, generator)
        made = self.vocode(network, self.log_mel(real))
        terms = {"mel": self.distance(estimate=made, target=real)}
        total = terms["mel"]
        if adversary is not None:
            with torch.no_grad():
                judged_real = adversary(real)
            judged = adversary(made)
            terms["adversarial"] = adversarial_loss(judged)
            terms["features"] = feature_loss(real=judged_real, generated=judged)
            total = total + self.adversarial * terms["adversarial"] + self.features * terms["features"]
            self.last = {"real": real, "made": made.detach()}
        return total, {name: term.detach() for name, term in terms.items()}

    def adversary_loss(self, adversary: nn.Module) -> Tensor:
        """Equation (1) of `lasslab.models.discriminators`: what the last `loss` made against what it was made from."""
        return judge_both(adversary, **self.last)

    def validate(self, network: nn.Module, batch: dict) -> dict[str, Tensor]:
        """Minus the distance in nats of the mel asked for and that of the waveform: of the network's own, of the
        corrected one, and of Griffin-Lim's, which the batch brings along."""
        log_mel = self.log_mel(batch["target"])
        made = self.vocode(network, log_mel)
        corrected = match_mel(made, log_mel, self.mel, n_iter=self.corrections)
        return {
            "mel_similarity": -mel_distance(estimate=self.log_mel(made), target=log_mel),
            "corrected_mel_similarity": -mel_distance(estimate=self.log_mel(corrected), target=log_mel),
            "griffin_lim_mel_similarity": batch["griffin_lim_mel_similarity"],
        }

    def picture(self, network: nn.Module, batch: dict) -> dict[str, Tensor]:
        """Log-mels of the first example, from the floor to the target's loudest."""
        log_mel = self.log_mel(batch["target"][:1])
        made = self.vocode(network, log_mel)
        low, high = log_mel.min(), log_mel.max()
        return {
            name: ((value[0] - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
            for name, value in {
                "target": log_mel,
                "prediction": self.log_mel(made),
                "corrected": self.log_mel(match_mel(made, log_mel, self.mel, n_iter=self.corrections)),
            }.items()
        }


@dataclass(frozen=True)
class VocoderRecipe(SoundRecipe):
    """A vocoder, the sounds it hears, and how it is trained.

    Args:
        size: of the network and of its adversary, see `lasslab.models.bigvgan.SIZES`.
        start_from: checkpoint, by name or folder, whose weights the training starts with; empty for random ones.
        seconds: length of a training clip, a whole number of frames.
        mixtures, silences, gain_db: see `Vocoding`.
        adversary_from: step from which on the adversary takes part; from n_steps on, it never does.
        adversary_learning_rate: at the top of the cosine.
        loss_adversarial, loss_features: weights beside the mel loss.
        corrections: repetitions of `lasslab.models.vocoders.match_mel` that the checkpoint asks its vocoder for.
        n_validation: clips to validate on.
        corpus … device: see `lasslab.training.sounds.SoundRecipe`.
    """

    size: str = "lab"
    start_from: str = ""
    n_per_class: int = 30
    synthesis_share: float = 0.3
    seconds: float = 0.4
    mixtures: float = 0.4
    silences: float = 0.15
    gain_db: float = 40.0
    shift: bool = False
    adversary_from: int = 2_000
    adversary_learning_rate: float = 5e-4
    loss_adversarial: float = 0.03
    loss_features: float = 0.2
    corrections: int = 12
    n_validation: int = 16
    n_steps: int = 3_000
    batch_size: int = 8
    learning_rate: float = 2e-3
    min_learning_rate: float = 5e-5
    warmup_steps: int = 50
    weight_decay: float = 0.0
    max_grad_norm: float = 5.0
    ema_decay: float = 0.998
    validate_every: int = 400
    save_every: int = 150
    picture_every: int = 600

    def __post_init__(self) -> None:
        check_size(self.size, bigvgan.SIZES)
        hop_length = bigvgan.SIZES[self.size].hop_length
        n_samples = round(self.seconds * SAMPLE_RATE)
        if n_samples < hop_length or n_samples % hop_length:
            raise ValueError(
                f"seconds must be a whole number of frames of {hop_length / SAMPLE_RATE} s, got {self.seconds}"
            )
        check_shares(self, "mixtures", "silences")
        check_at_least(self, 0, "gain_db", "adversary_from", "loss_adversarial", "loss_features")
        check_at_least(self, 1, "n_validation")
        check_positive(self, "adversary_learning_rate")
        if self.corrections < 0:
            raise ValueError(f"corrections is 0 or more, got {self.corrections}")
        super().__post_init__()


VOCODER_PRESETS: dict[str, VocoderRecipe] = {
    "quick": VocoderRecipe(
        size="quick",
        corpus="synthesis",
        n_per_class=4,
        adversary_from=60,
        n_steps=100,
        batch_size=4,
        warmup_steps=5,
        ema_decay=0.9,
        n_validation=4,
        validate_every=50,
        save_every=50,
        picture_every=50,
    ),
    "lab": VocoderRecipe(),
    # what may follow "lab": the adversary from the start, against a network that already knows levels
    "lab_second": VocoderRecipe(
        start_from="runs/bigvgan-lab/last", adversary_from=100, n_steps=1_500, learning_rate=5e-4, seed=1
    ),
    # the same network where a GPU is at hand: forty times the sounds, most of them against the adversary
    "lab_long": VocoderRecipe(
        adversary_from=2_000,
        seconds=0.8,
        n_steps=20_000,
        batch_size=32,
        n_workers=8,
        ema_decay=0.999,
        validate_every=1_000,
        save_every=1_000,
        picture_every=5_000,
    ),
    # BigVGAN's: 1 M steps, batch 32 of 8,192 samples (8,160 here), AdamW 1e-4, adversary from the start, mel x 45
    "full": VocoderRecipe(
        size="full",
        seconds=0.51,
        silences=0.05,
        speed=0.0,
        filter_db=0.0,
        adversary_from=0,
        adversary_learning_rate=1e-4,
        loss_adversarial=1 / 45,
        loss_features=2 / 45,
        corrections=0,
        n_steps=1_000_000,
        batch_size=32,
        learning_rate=1e-4,
        warmup_steps=0,
        weight_decay=0.01,
        max_grad_norm=0.0,
        ema_decay=0.0,
        mixed_precision="bf16",
        n_workers=8,
        validate_every=5_000,
        save_every=5_000,
        picture_every=20_000,
    ),
}


def train_vocoder(
    recipe: VocoderRecipe, directory: str | Path, *, resume: bool = False, progress: bool = True
) -> FitResult:
    """Train a vocoder as a recipe says, into a folder that `load_vocoder` reads.

    Args:
        recipe: everything that decides the run.
        directory: folder of the training.
        resume: continue the training in the folder.
        progress: show a bar.

    Returns:
        What was reached.

    Raises:
        ValueError: when a corpus or a setting is not there; see `fit`.
    """
    check_folder(recipe, directory, resume=resume)
    sizes = bigvgan.SIZES[recipe.size]
    torch.manual_seed(recipe.seed)  # the initial weights
    network = BigVGAN(sizes)
    start_weights(network, recipe, resume=resume)
    adversary = None
    if recipe.adversary_from < recipe.n_steps:
        adversary = Adversary(
            Discriminators(discriminators.SIZES[recipe.size]),
            start=recipe.adversary_from,
            learning_rate=recipe.adversary_learning_rate,
        )
    objective = Vocoding(
        sizes.mel(),
        mixtures=recipe.mixtures,
        silences=recipe.silences,
        gain_db=recipe.gain_db,
        adversarial=recipe.loss_adversarial,
        features=recipe.loss_features,
        corrections=recipe.corrections,
    )
    return fit_recipe(
        recipe,
        network,
        objective,
        training_sounds(recipe),
        directory=directory,
        validation=validation_sounds(recipe),
        about={
            "system": "vocoder",
            "architecture": "bigvgan",
            "network": sizes.to_dict(),
            "corrections": recipe.corrections,
        },
        adversary=adversary,
        resume=resume,
        progress=progress,
    )


def training_sounds(recipe: VocoderRecipe) -> MixtureDataset:
    """Every training clip with the sound that may be mixed in, drawn anew for each step."""
    return drawn_mixtures(recipe)


def validation_sounds(recipe: VocoderRecipe) -> list[dict]:
    """Whole 5 s clips that training never hears, evenly taken from their corpus, and what Griffin-Lim makes of them."""
    clips = held_out_clips(recipe, n_per_class=1)
    n_clips = min(recipe.n_validation, len(clips))
    chosen = [clips[k * len(clips) // n_clips] for k in range(n_clips)]
    mel = bigvgan.SIZES[recipe.size].mel()
    items = [{"target": fit_length(clip.load(), 5 * SAMPLE_RATE)} for clip in chosen]
    return [
        {**batch, "griffin_lim_mel_similarity": -griffin_lim_distance(batch["target"], mel)}
        for batch in collated(items, 8)
    ]


def griffin_lim_distance(waveform: Tensor, mel: MelConfig, *, n_iter: int = 32) -> Tensor:
    """Mel distance (B,) of waveforms (B, T) and what Griffin-Lim makes of their mel spectrograms."""
    log_mel = log_mel_spectrogram(waveform, mel)
    magnitude = mel_to_magnitude(log_mel.exp(), mel)
    length = (log_mel.shape[-1] - 1) * mel.hop_length
    made = griffin_lim(magnitude, n_fft=mel.n_fft, hop_length=mel.hop_length, length=length, n_iter=n_iter)
    return mel_distance(estimate=log_mel_spectrogram(fit_length(made, waveform.shape[-1]), mel), target=log_mel)
