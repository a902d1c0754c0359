"""Audio and text in one space, with class logits: the embedding that the metrics of generative systems stand on.

A contrastive model (CLAP) brings a sound and a sentence that describes it to nearby points of the unit sphere:

    a = normalise(P_a(CNN(log-mel)))      t = normalise(P_t(mean of the token embeddings))
    p(t_j | a_i) = softmax_j(a_i . t_j / tau)                                                                    (1)

A linear head on the sound's features gives class probabilities besides. So one small network serves every metric of
`lasslab.evaluation.distances`: the Fréchet distance and CLAPScore_A compare a with a, CLAPScore compares a with t, KL
and the Inception Score compare class probabilities.

`load_clap("clap-lab")` is the network of this file, trained by `lasslab train clap` and shipped, so that the metrics
work offline. `load_clap("laion/clap-htsat-unfused")`, or a folder, is LAION-CLAP through transformers' `ClapModel`.
**Figures from two embeddings cannot be compared**: `name` goes into every table heading.

References: Elizalde et al., "CLAP: learning audio concepts from natural language supervision", ICASSP 2023; Wu et al.,
"Large-scale contrastive language-audio pretraining with feature fusion and keyword-to-caption augmentation", ICASSP
2023 (LAION-CLAP). Notebook 08.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lasslab.data.synthesis import EVENT_CLASSES
from lasslab.models.checkpoints import (
    CONFIG_FILE,
    build_config,
    build_network,
    check_fields,
    find_checkpoint,
    load_weights,
    read_config,
    weights_sha256,
)
from lasslab.models.patches import to_patches
from lasslab.models.text import TextCache, TextEncoder, load_text_encoder
from lasslab.signal.audio import SAMPLE_RATE, check_waveform, fit_length, resample
from lasslab.signal.mel import MelConfig, log_mel_spectrogram

DEFAULT_CLAP = "clap-lab"
WINDOW_SECONDS = 5.0  # longer clips are cut into windows of this length: about what training heard
SHORTEST_SECONDS = 0.32  # shorter clips are padded with silence: one patch of the last feature map
BATCH = 16  # windows in memory at a time


@dataclass(frozen=True)
class CLAPConfig:
    """Sizes of the network, and the log-mel spectrogram it reads.

    Args:
        channels: widths of the stem and of the blocks after it; each block halves both axes.
        hidden: width of the features that the projection and the class head read.
        dim: width D of the embedding.
        n_labels: number K of classes.
        text_dim: width of one text token embedding.
        dropout: share of features dropped in training.
        n_fft: STFT frame, samples at 16 kHz.
        hop_length: STFT hop, samples.
        n_mels: filters M.
    """

    channels: tuple[int, ...] = (24, 48, 96, 192)
    hidden: int = 256
    dim: int = 64
    n_labels: int = len(EVENT_CLASSES)
    text_dim: int = 384
    dropout: float = 0.2
    n_fft: int = 1024
    hop_length: int = 512
    n_mels: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))  # JSON knows lists only
        counts = (*self.channels, self.hidden, self.dim, self.n_labels, self.text_dim, self.n_fft, self.hop_length)
        if not self.channels or min(counts) < 1:
            raise ValueError(f"widths and frames must be positive, got {counts}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        self.mel()  # checks its own values

    def mel(self) -> MelConfig:
        """The spectrogram's part."""
        return MelConfig(n_fft=self.n_fft, hop_length=self.hop_length, n_mels=self.n_mels)

    def to_dict(self) -> dict:
        """Plain values for `config.json`."""
        return asdict(self)


#: Sizes by name: 0.15 and 0.8 M parameters, without the frozen text encoder.
SIZES: dict[str, CLAPConfig] = {
    "quick": CLAPConfig(channels=(8, 16, 32, 64), hidden=64),
    "lab": CLAPConfig(),
}


class Block(nn.Module):
    """Two 3x3 convolutions, then both axes halved by averaging."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(n_out)
        self.second = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H / 2, W / 2)."""
        x = F.relu(self.first_norm(self.first(x)))
        x = F.relu(self.second_norm(self.second(x)))
        return F.avg_pool2d(x, 2)


class CLAPOutput(NamedTuple):
    """What one batch gives: embeddings of sounds and of sentences (B, D), class logits (B, K), and 1 / tau."""

    audio: Tensor
    text: Tensor
    logits: Tensor
    scale: Tensor


class CLAP(nn.Module):
    """A small audio-text embedding: log-mel spectrograms and token embeddings in, points of the unit sphere out.

    Args:
        config: sizes, see `SIZES`.
    """

    largest_scale = 100.0  # LAION-CLAP's bound on 1 / tau: beyond it the loss is decided by the hardest pair alone

    def __init__(self, config: CLAPConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CLAPConfig()
        stem, *widths = config.channels
        self.stem = nn.Conv2d(5, stem, 3, padding=1)  # 2 x 2 bins and their height
        self.blocks = nn.ModuleList(Block(n_in, n_out) for n_in, n_out in zip([stem, *widths], widths, strict=False))
        self.features = nn.Linear(2 * config.channels[-1], config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.audio_projection = nn.Linear(config.hidden, config.dim)
        self.classifier = nn.Linear(config.hidden, config.n_labels)
        self.text_projection = nn.Sequential(
            nn.LayerNorm(config.text_dim), nn.Linear(config.text_dim, 128), nn.GELU(), nn.Linear(128, config.dim)
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_audio(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Embed sounds.

        Args:
            log_mel: natural log of mel magnitudes (B, M, N), see `CLAPConfig.mel`.

        Returns:
            Embeddings (B, D) of length 1, and class logits (B, K).
        """
        # silence is 0, so that padding with zeros is padding with silence
        x = (log_mel - math.log(self.config.mel().floor)) / 10
        x = F.relu(self.stem(to_patches(x, patch=2, n_halvings=len(self.blocks))))
        for block in self.blocks:
            x = block(x)
        x = x.mean(dim=2)  # over frequency, (B, C, N')
        # the mean says what is there all the time, the maximum what is there at all
        x = torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1)
        x = self.dropout(F.relu(self.features(x)))
        return F.normalize(self.audio_projection(x), dim=-1), self.classifier(x)

    def encode_text(self, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """Embed sentences.

        Args:
            tokens: text token embeddings (B, L, text_dim).
            token_mask: True where a token is real (B, L).

        Returns:
            Embeddings (B, D) of length 1.
        """
        weight = token_mask[..., None].to(tokens.dtype)
        sentence = (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        return F.normalize(self.text_projection(sentence), dim=-1)

    def forward(self, log_mel: Tensor, tokens: Tensor, token_mask: Tensor) -> CLAPOutput:
        """Embed sounds and sentences; see `encode_audio` and `encode_text`."""
        audio, logits = self.encode_audio(log_mel)
        scale = self.log_scale.exp().clamp(max=self.largest_scale)
        return CLAPOutput(audio, self.encode_text(tokens, token_mask), logits, scale)


class AudioTextEmbedding(Protocol):
    """What every metric asks of an embedding.

    Attributes:
        name: goes into table headings.
        labels: the K classes, in the order of the probabilities.
    """

    name: str
    labels: tuple[str, ...]

    def embed_audio(self, waveforms: Tensor, *, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """(B, T) -> (B, D), each of length 1."""

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """B sentences -> (B, D), each of length 1."""

    def classify(self, waveforms: Tensor, *, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """(B, T) -> probabilities (B, K)."""


class LabCLAP:
    """A trained `CLAP` with its text encoder and its labels.

    A clip longer than 5 s is cut into windows that overlap as little as they must; the windows' embeddings are
    averaged and brought back to length 1, their probabilities averaged.

    Args:
        network: the trained network; it is put in evaluation mode.
        text_encoder: the encoder it was trained with.
        labels: its K classes.
        name: how tables call it.

    Raises:
        ValueError: labels or text encoder do not fit the network.
    """

    def __init__(self, network: CLAP, text_encoder: TextEncoder | TextCache, labels: Sequence[str], name: str) -> None:
        if len(labels) != network.config.n_labels:
            raise ValueError(f"{len(labels)} labels for a network of {network.config.n_labels} classes: name them all")
        if text_encoder.dim != network.config.text_dim:
            raise ValueError(
                f"text encoder {text_encoder.name!r} is {text_encoder.dim} wide, the network expects "
                f"{network.config.text_dim}: use the encoder it was trained with"
            )
        self.network = network.eval().to(memory_format=torch.channels_last)
        self.text_encoder = text_encoder if isinstance(text_encoder, TextCache) else TextCache(text_encoder)
        self.labels, self.name = tuple(labels), name

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights: a network that was trained again has the same name and another fingerprint."""
        return weights_sha256(self.network)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.log_scale.device

    def embed_audio(self, waveforms: Tensor, *, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Embed sounds.

        Args:
            waveforms: (B, T), float, any length.
            sample_rate: Hz.

        Returns:
            Embeddings (B, D) of length 1, float32, on the CPU.

        Raises:
            ValueError: not a batch of usable waveforms, or an impossible rate.
        """
        return F.normalize(self._windowed(waveforms, sample_rate, lambda output: output[0]), dim=-1)

    def embed_and_classify(self, waveforms: Tensor, *, sample_rate: int = SAMPLE_RATE) -> tuple[Tensor, Tensor]:
        """What `embed_audio` and `classify` give, in one pass of the network."""
        both = self._windowed(
            waveforms, sample_rate, lambda output: torch.cat([output[0], output[1].softmax(dim=-1)], dim=-1)
        )
        audio, probabilities = both.split([both.shape[-1] - len(self.labels), len(self.labels)], dim=-1)
        return F.normalize(audio, dim=-1), probabilities

    def classify(self, waveforms: Tensor, *, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Class probabilities.

        Args:
            waveforms: (B, T), float, any length.
            sample_rate: Hz.

        Returns:
            Probabilities (B, K) in the order of `labels`, float32, on the CPU.

        Raises:
            ValueError: see `embed_audio`.
        """
        return self._windowed(waveforms, sample_rate, lambda output: output[1].softmax(dim=-1))

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embed sentences.

        Args:
            texts: B sentences.

        Returns:
            Embeddings (B, D) of length 1, float32, on the CPU.

        Raises:
            ValueError: there is no sentence.
        """
        embedding = self.text_encoder(texts).to(self.device)
        with torch.no_grad():
            return self.network.encode_text(embedding.tokens, embedding.mask).float().cpu()

    def _windowed(self, waveforms: Tensor, sample_rate: int, read: Callable[[tuple], Tensor]) -> Tensor:
        waveforms = _at_rate(waveforms, sample_rate, SAMPLE_RATE)
        windows = cut_windows(
            waveforms, round(WINDOW_SECONDS * SAMPLE_RATE), shortest=round(SHORTEST_SECONDS * SAMPLE_RATE)
        )  # (B, W, T')
        flat, mel = windows.flatten(0, 1), self.network.config.mel()
        with torch.no_grad():
            parts = [
                read(self.network.encode_audio(log_mel_spectrogram(part.to(self.device), mel))).float().cpu()
                for part in flat.split(BATCH)
            ]
        return torch.cat(parts).unflatten(0, windows.shape[:2]).mean(dim=1)


class HubCLAP:
    """LAION-CLAP through transformers: 48 kHz, windows of at most 10 s, no class head.

    `classify` is zero-shot: the softmax, at the model's own temperature, over the similarity to one caption a label.
    Its probabilities are those of equation (1), not of a classifier.

    Args:
        model: a `ClapModel`.
        tokenizer: its tokenizer.
        feature_extractor: its feature extractor, of which rate, window and features are taken.
        labels: label -> the caption that stands for it; default the course's classes.
        name: how tables call it.

    Raises:
        ValueError: there are fewer than two labels.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable,
        feature_extractor: Callable,
        *,
        labels: Mapping[str, str] | None = None,
        name: str,
    ) -> None:
        captions = labels or {label: event.captions[0] for label, event in EVENT_CLASSES.items()}
        if len(captions) < 2:
            raise ValueError(f"a choice between classes needs two at least, got {list(captions)}")
        self.model, self.tokenizer, self.feature_extractor = model.eval(), tokenizer, feature_extractor
        self.labels, self.captions, self.name = tuple(captions), tuple(captions.values()), name
        self._label_embeddings: Tensor | None = None  # of the captions, made when they are first asked for

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights."""
        return weights_sha256(self.model)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def embed_audio(self, waveforms: Tensor, *, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """As `LabCLAP.embed_audio`."""
        extractor = self.feature_extractor
        waveforms = _at_rate(waveforms, sample_rate, extractor.sampling_rate)
        windows = cut_windows(waveforms, extractor.nb_max_samples, shortest=extractor.fft_window_size)
        parts = []
        for part in windows.flatten(0, 1).split(BATCH):
            # No window is longer than the extractor's own: it never crops at random. What it draws at random for
            # the "fusion" models, which clip to treat as a long one, is overruled.
            features = extractor(part.numpy(), sampling_rate=extractor.sampling_rate, return_tensors="pt")
            is_longer = torch.zeros(len(part), 1, dtype=torch.bool, device=self.device)
            with torch.no_grad():
                pooled = self.model.audio_model(
                    input_features=features["input_features"].float().to(self.device), is_longer=is_longer
                ).pooler_output
                parts.append(F.normalize(self.model.audio_projection(pooled), dim=-1).float().cpu())
        return F.normalize(torch.cat(parts).unflatten(0, windows.shape[:2]).mean(dim=1), dim=-1)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """As `LabCLAP.embed_text`."""
        if isinstance(texts, str) or not len(texts):  # a string is a sequence too, of its letters
            raise ValueError(f"expected a list of at least one sentence, got {texts!r}")
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(self.device)
        with torch.no_grad():
            pooled = self.model.text_model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
            return F.normalize(self.model.text_projection(pooled), dim=-1).float().cpu()

    def classify(self, waveforms: Tensor, *, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """As `LabCLAP.classify`, zero-shot."""
        return self.embed_and_classify(waveforms, sample_rate=sample_rate)[1]

    def embed_and_classify(self, waveforms: Tensor, *, sample_rate: int = SAMPLE_RATE) -> tuple[Tensor, Tensor]:
        """As `LabCLAP.embed_and_classify`."""
        audio = self.embed_audio(waveforms, sample_rate=sample_rate)
        if self._label_embeddings is None:
            self._label_embeddings = self.embed_text(self.captions)
        similarity = audio @ self._label_embeddings.T
        return audio, (self.model.logit_scale_a.detach().exp().cpu() * similarity).softmax(dim=-1)


def cut_windows(waveforms: Tensor, length: int, *, shortest: int) -> Tensor:
    """Cut clips into as few windows as cover them, evenly spaced from the first sample to the last.

    Args:
        waveforms: (B, T).
        length: longest window, samples.
        shortest: clips with fewer samples are padded with silence.

    Returns:
        Windows (B, W, T'): W = 1 and T' = max(T, shortest) up to `length`, else W = ceil(T / length) and T' = length.
    """
    n_samples = waveforms.shape[-1]
    if n_samples <= length:
        return fit_length(waveforms, max(n_samples, shortest))[:, None]
    n_windows = math.ceil(n_samples / length)
    starts = [round(window * (n_samples - length) / (n_windows - 1)) for window in range(n_windows)]
    return torch.stack([waveforms[:, start : start + length] for start in starts], dim=1)


def _at_rate(waveforms: Tensor, sample_rate: int, wanted: int) -> Tensor:
    """Float32 on the CPU at the wanted rate, or a refusal."""
    check_waveform(waveforms, name="waveforms to embed, (B, T),", dims=(2,))
    return resample(waveforms.detach().float().cpu(), orig_rate=sample_rate, new_rate=wanted)


# config.json of a clap checkpoint: field -> default; "system", "network" and "labels" must be given
CLAP_FIELDS: dict[str, Any] = {
    "system": "clap",
    "network": {},
    "labels": [],
    "text_encoder": "minilm",
    "sample_rate": SAMPLE_RATE,
    "recipe": {},
    "provenance": {},
}


def load_clap(name: str | os.PathLike[str] = DEFAULT_CLAP, *, device: torch.device | str = "cpu") -> LabCLAP | HubCLAP:
    """Load an audio-text embedding.

    Args:
        name: a checkpoint under `checkpoint_root()`, a folder (a checkpoint of `lasslab train clap`, or a `ClapModel`
            saved with `save_pretrained`, with its processor), or a hub name such as "laion/clap-htsat-unfused".
        device: where to put it.

    Returns:
        The embedding.

    Raises:
        ValueError: an unknown name, files that are missing, damaged or of another kind of model, or a hub that cannot
            be reached.

    Notebook: 08.
    """
    try:
        folder = find_checkpoint(name)
    except ValueError as error:
        if str(name).count("/") == 1 and not str(name).startswith((".", "/")) and not Path(name).exists():
            return _load_hub(str(name), device, local=False)
        raise ValueError(f"{error}; or give a hub name such as 'laion/clap-htsat-unfused'") from error
    config = read_config(folder)
    if config.get("model_type") == "clap":
        return _load_hub(str(folder), device, local=True)
    return _load_lab(folder, config, device)


def _load_lab(folder: Path, config: dict[str, Any], device: torch.device | str) -> LabCLAP:
    path = folder / CONFIG_FILE
    if config.get("system") != "clap":
        kind = config.get("system", config.get("model_type"))
        raise ValueError(f"{path}: it is of a {kind!r} model, expected 'clap': use 'clap-lab', for example")
    if missing := [field for field in ("network", "labels") if field not in config]:
        raise ValueError(f"{path}: missing fields {', '.join(missing)}: copy the file from the checkpoint again")
    check_fields(config, CLAP_FIELDS, path=path)
    config = CLAP_FIELDS | config
    if config["sample_rate"] != SAMPLE_RATE:
        raise ValueError(f"{path}: sample_rate is {config['sample_rate']}, the network reads {SAMPLE_RATE} Hz")
    sizes = build_config(CLAPConfig, config["network"], path=path)
    network = build_network(CLAP, sizes, path=path)
    load_weights(network, folder)
    try:
        text_encoder = load_text_encoder(config["text_encoder"], device=device)
        return LabCLAP(network.to(device), text_encoder, config["labels"], folder.resolve().name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _load_hub(source: str, device: torch.device | str, *, local: bool) -> HubCLAP:
    from safetensors import SafetensorError
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model, loading = ClapModel.from_pretrained(
            source, local_files_only=local, use_safetensors=True, output_loading_info=True
        )
        if missing := sorted(loading["missing_keys"]):  # transformers would draw them at random and go on
            raise ValueError(f"it lacks weights such as {missing[0]}")
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
        feature_extractor = ClapFeatureExtractor.from_pretrained(source, local_files_only=local)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        remedy = "check the folder's files" if local else "check the name and the network, or use 'clap-lab' offline"
        raise ValueError(f"CLAP model {source!r} could not be loaded ({reason}): {remedy}") from error
    name = Path(source).resolve().name if local else source
    return HubCLAP(model.to(device), tokenizer, feature_extractor, name=name)
