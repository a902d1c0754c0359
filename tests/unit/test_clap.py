"""The audio-text embedding: its network, any length and rate, its checkpoint folder, and LAION-CLAP in a tiny copy."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from lasslab.models.checkpoints import save_network
from lasslab.models.clap import CLAP, SIZES, CLAPConfig, HubCLAP, LabCLAP, cut_windows, load_clap
from lasslab.models.text import TextEmbedding, load_text_encoder
from lasslab.signal.mel import log_mel_spectrogram

TINY = CLAPConfig(channels=(4, 8), hidden=8, dim=6, n_labels=3, text_dim=6, n_mels=16)
LABELS = ("dog", "rain", "siren")


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def noise(*shape: int, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    return level * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class LetterEncoder:
    """One token per letter; shorter sentences are padded."""

    dim = 6
    name = "letters"

    def __call__(self, texts) -> TextEmbedding:
        rows = [torch.sin(torch.tensor([float(ord(c)) for c in t])[:, None] * torch.arange(1.0, 7.0)) for t in texts]
        lengths = torch.tensor([len(row) for row in rows])
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return TextEmbedding(tokens, torch.arange(tokens.shape[1]) < lengths[:, None])


@pytest.fixture(scope="module")
def tiny() -> LabCLAP:
    torch.manual_seed(0)
    return LabCLAP(CLAP(TINY), LetterEncoder(), LABELS, "tiny")


# --- the network


def test_sizes_are_small_and_the_head_knows_the_course_s_classes():
    count = {name: sum(p.numel() for p in CLAP(config).parameters()) for name, config in SIZES.items()}
    assert count["quick"] < count["lab"] < 3_000_000
    assert all(config.n_labels == 36 for config in SIZES.values())


def test_embeddings_lie_on_the_unit_sphere():
    torch.manual_seed(0)
    network = CLAP(TINY).eval()
    text = LetterEncoder()(["a dog", "rain"])
    with torch.no_grad():
        output = network(log_mel_spectrogram(noise(2, 8000), TINY.mel()), text.tokens, text.mask)
    assert output.audio.shape == output.text.shape == (2, 6) and output.logits.shape == (2, 3)
    for points in (output.audio, output.text):
        assert torch.allclose(points.norm(dim=-1), torch.ones(2), atol=1e-5)
    assert output.scale.item() == pytest.approx(1 / 0.07, rel=1e-5)


def test_the_scale_is_bounded():
    network = CLAP(TINY).eval()
    nn.init.constant_(network.log_scale, 20.0)
    text = LetterEncoder()(["a"])
    assert network(torch.zeros(1, 16, 20), text.tokens, text.mask).scale.item() == 100


def test_padding_of_a_sentence_changes_nothing(tiny):
    alone = tiny.embed_text(["dog"])
    beside = tiny.embed_text(["dog", "a much longer sentence than that"])[:1]
    assert torch.allclose(alone, beside, atol=1e-6)


def test_a_padded_sentence_is_the_mean_of_its_real_tokens():
    network = CLAP(TINY).eval()
    tokens = noise(1, 4, 6, level=1.0)
    mask = torch.tensor([[True, True, False, False]])
    with torch.no_grad():
        got = network.encode_text(tokens, mask)
        by_hand = network.text_projection(tokens[0, :2].mean(0, keepdim=True))
    assert torch.allclose(got, by_hand / by_hand.norm(), atol=1e-5)


def test_silence_is_zero_inside_and_padding_is_silence():
    """A clip that ends within the last patch is continued by silence, not by some level."""
    network = CLAP(TINY).eval()
    with torch.no_grad():
        quiet = network.encode_audio(torch.full((1, 16, 8), math.log(1e-5)))[0]
        shorter = network.encode_audio(torch.full((1, 16, 6), math.log(1e-5)))[0]
    assert torch.allclose(quiet, shorter, atol=1e-6)


def test_every_weight_gets_a_gradient():
    torch.manual_seed(0)
    network, text = CLAP(TINY).train(), LetterEncoder()(["a dog", "rain"])
    output = network(log_mel_spectrogram(noise(2, 8000), TINY.mel()), text.tokens, text.mask)
    ((output.audio @ output.text.T).square().sum() * output.scale + output.logits.square().sum()).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@pytest.mark.parametrize("wrong", [{"channels": ()}, {"dim": 0}, {"dropout": 1.0}, {"n_mels": 0}, {"hop_length": 0}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError):
        CLAPConfig(**wrong)


# --- sounds of any length and rate


@pytest.mark.parametrize(
    ("n_samples", "length", "n_windows"), [(10, 10, 1), (11, 10, 2), (20, 10, 2), (21, 10, 3), (95, 10, 10)]
)
def test_windows_cover_every_sample_and_are_as_few_as_can_be(n_samples, length, n_windows):
    windows = cut_windows(torch.arange(float(n_samples))[None], length, shortest=1)
    assert windows.shape == (1, n_windows, length)
    assert set(windows.flatten().tolist()) == set(range(n_samples))


def test_short_clips_are_padded_with_silence():
    windows = cut_windows(torch.ones(2, 3), 10, shortest=8)
    assert windows.shape == (2, 1, 8) and windows[0, 0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("seconds", [0.01, 0.5, 5.0, 7.3])
def test_any_length_gives_one_point_of_the_sphere(tiny, seconds):
    waveforms = noise(2, round(16_000 * seconds))
    points, probabilities = tiny.embed_audio(waveforms), tiny.classify(waveforms)
    assert points.shape == (2, 6) and points.dtype == torch.float32 and not points.is_inference()
    assert torch.allclose(points.norm(dim=-1), torch.ones(2), atol=1e-5)
    assert probabilities.shape == (2, 3)
    assert torch.allclose(probabilities.sum(-1), torch.ones(2), atol=1e-5)


def test_a_long_clip_is_the_mean_of_its_windows(tiny):
    waveforms = noise(1, 10 * 16_000)
    halves = [tiny.embed_audio(half) for half in waveforms.split(5 * 16_000, dim=1)]
    expected = nn.functional.normalize(sum(halves), dim=-1)
    assert torch.allclose(tiny.embed_audio(waveforms), expected, atol=1e-5)
    halves = [tiny.classify(half) for half in waveforms.split(5 * 16_000, dim=1)]
    assert torch.allclose(tiny.classify(waveforms), sum(halves) / 2, atol=1e-5)


def test_company_changes_nothing(tiny):
    waveforms = noise(20, 8000)
    assert torch.allclose(tiny.embed_audio(waveforms)[7:8], tiny.embed_audio(waveforms[7:8]), atol=1e-5)


def test_another_rate_is_resampled(tiny):
    time = torch.arange(48_000) / 48_000
    fast = 0.1 * torch.sin(2 * math.pi * 440 * time)[None]
    assert (tiny.embed_audio(fast, sample_rate=48_000) @ tiny.embed_audio(fast[:, ::3]).T).item() > 0.999


def test_silence_has_a_place_too(tiny):
    assert tiny.embed_audio(torch.zeros(1, 16_000)).isfinite().all()


@pytest.mark.parametrize(
    ("waveforms", "words"),
    [
        (noise(16_000), "2 dimensions"),
        (noise(1, 16_000) * math.nan, "NaN"),
        (torch.zeros(2, 0), "at least"),
        (torch.ones(2, 400, dtype=torch.int16), "floats"),
    ],
)
def test_unusable_sounds_are_refused(tiny, waveforms, words):
    for method in (tiny.embed_audio, tiny.classify):
        with pytest.raises(ValueError) as error:
            method(waveforms)
        assert words in one_line(error)


def test_labels_and_encoder_must_fit():
    with pytest.raises(ValueError, match="2 labels for a network of 3"):
        LabCLAP(CLAP(TINY), LetterEncoder(), LABELS[:2], "x")
    other = CLAP(CLAPConfig(channels=(4, 8), n_labels=3, text_dim=384))
    with pytest.raises(ValueError, match="6 wide"):
        LabCLAP(other, LetterEncoder(), LABELS, "x")


# --- checkpoint folders


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory) -> str:
    """A tiny text encoder of width 8."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<pad>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(["a dog barking rain falling siren"], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    T5EncoderModel(T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)).save_pretrained(
        folder
    )
    return str(folder)


@pytest.fixture
def folder(tmp_path, text_folder) -> Path:
    torch.manual_seed(1)
    sizes = CLAPConfig(channels=(4, 8), hidden=8, dim=6, n_labels=3, text_dim=8, n_mels=16)
    config = {"system": "clap", "network": sizes.to_dict(), "labels": LABELS, "text_encoder": text_folder}
    return save_network(tmp_path / "my-clap", CLAP(sizes), config)


def test_a_checkpoint_comes_back_as_it_was(folder, text_folder):
    embedding = load_clap(folder)
    assert isinstance(embedding, LabCLAP) and embedding.name == "my-clap" and embedding.labels == LABELS
    torch.manual_seed(1)
    same = LabCLAP(CLAP(embedding.network.config), load_text_encoder(text_folder), LABELS, "same")
    waveforms = noise(2, 8000)
    assert torch.equal(embedding.embed_audio(waveforms), same.embed_audio(waveforms))
    assert torch.equal(embedding.embed_text(["a dog"]), same.embed_text(["a dog"]))
    assert embedding.device == torch.device("cpu")


def change(folder: Path, **fields) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"system": "mask"}, "'mask' model"),
        ({"labels": None}, "missing fields labels"),
        ({"labels": ["dog"]}, "1 labels"),
        ({"sample_rate": 48_000}, "48000"),
        ({"extra": 1}, "unknown fields extra"),
        ({"network": {"dim": 5}}, "wrongly shaped"),
        ({"network": {"dim": 0}}, "refuses"),
        ({"text_encoder": "nothing"}, "unknown text encoder"),
    ],
)
def test_a_wrong_configuration_is_refused(folder, fields, words):
    if fields.get("network") == {"dim": 5}:
        network = json.loads((folder / "config.json").read_text())["network"]
        fields = {"network": network | {"dim": 5}}
    change(folder, **fields)
    with pytest.raises(ValueError) as error:
        load_clap(folder)
    assert words in one_line(error)


def test_a_pickle_is_never_opened(folder):
    torch.save({}, folder / "model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="never opened"):
        load_clap(folder)


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(ValueError) as error:
        load_clap("no-such-clap")
    assert "laion/clap-htsat-unfused" in one_line(error)


def test_a_hub_that_cannot_be_reached_is_said_in_a_line(monkeypatch):
    from transformers import ClapModel

    def unreachable(*args, **kwargs):
        raise OSError("We couldn't connect to the hub\nlong story")

    monkeypatch.setattr(ClapModel, "from_pretrained", unreachable)
    with pytest.raises(ValueError) as error:
        load_clap("nobody/nothing")
    assert "use 'clap-lab' offline" in one_line(error)


# --- LAION-CLAP


@pytest.fixture(scope="module")
def laion(tmp_path_factory) -> Path:
    """A ClapModel of random weights with its processor, saved as the hub's models are; windows of 2 s at 16 kHz."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("laion") / "tiny-laion"
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<pad>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(["a dog barking rain falling siren owl hooting"], trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=20
    ).save_pretrained(folder)
    torch.manual_seed(0)
    text = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"intermediate_size": 16, "max_position_embeddings": 40, "pad_token_id": 0, "projection_dim": 12}
    audio = {"num_mel_bins": 16, "spec_size": 64, "window_size": 4, "patch_size": 2, "patch_stride": 2}
    audio |= {"hidden_size": 32, "patch_embeds_hidden_size": 16, "depths": [1, 1], "num_hidden_layers": 2}
    audio |= {"num_attention_heads": [2, 2], "projection_dim": 12}
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=12)).save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=16, sampling_rate=16_000, hop_length=160, max_length_s=2, frequency_max=8000,
        truncation="rand_trunc",
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_a_saved_clap_model_gives_the_model_s_own_embeddings(laion):
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    embedding = load_clap(laion)
    assert isinstance(embedding, HubCLAP) and embedding.name == "tiny-laion" and len(embedding.labels) == 36
    model = ClapModel.from_pretrained(laion).eval()
    waveforms, texts = noise(2, 20_000), ["a dog barking", "rain"]
    features = ClapFeatureExtractor.from_pretrained(laion)(waveforms.numpy(), sampling_rate=16_000, return_tensors="pt")
    tokens = AutoTokenizer.from_pretrained(laion)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            input_features=features["input_features"].float(),
            is_longer=torch.zeros(2, 1, dtype=torch.bool),
        )
    assert torch.allclose(embedding.embed_audio(waveforms), output.audio_embeds, atol=1e-4)
    assert torch.allclose(embedding.embed_text(texts), output.text_embeds, atol=1e-4)


def test_long_clips_are_windowed_and_not_cropped_at_random(laion):
    embedding = load_clap(laion)
    waveforms = torch.cat([noise(1, 32_000), torch.sin(torch.arange(32_000) / 20)[None]], dim=1)
    halves = [embedding.embed_audio(half) for half in waveforms.split(32_000, dim=1)]
    expected = nn.functional.normalize(sum(halves), dim=-1)
    assert torch.allclose(embedding.embed_audio(waveforms), expected, atol=1e-4)
    assert torch.equal(embedding.embed_audio(waveforms), embedding.embed_audio(waveforms))


def test_its_classes_are_captions(laion):
    model = load_clap(laion)
    embedding = HubCLAP(
        model.model, model.tokenizer, model.feature_extractor, labels={"d": "a dog", "r": "rain falling"}, name="x"
    )
    probabilities = embedding.classify(noise(3, 16_000))
    assert probabilities.shape == (3, 2) and torch.allclose(probabilities.sum(-1), torch.ones(3))
    cosines = embedding.embed_audio(noise(3, 16_000)) @ embedding.embed_text(["a dog", "rain falling"]).T
    scale = model.model.logit_scale_a.exp().item()
    assert torch.allclose(probabilities, (scale * cosines).softmax(-1), atol=1e-5)
    with pytest.raises(ValueError, match="two at least"):
        HubCLAP(model.model, model.tokenizer, model.feature_extractor, labels={"d": "a dog"}, name="x")


def test_sentences_must_be_a_list(laion, tiny):
    for embedding in (load_clap(laion), tiny):
        for texts in ("a dog", []):
            with pytest.raises(ValueError, match="list of at least one"):
                embedding.embed_text(texts)


def test_a_clap_model_that_lacks_weights_is_refused(laion, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in laion.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError) as error:
        load_clap(tmp_path)
    assert "lacks weights" in one_line(error)
