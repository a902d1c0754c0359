"""LoRA on text encoders: nothing changes at first, only the adapter learns, and it comes back from disk."""

import json

import pytest
import torch
from transformers import BertConfig, BertModel, T5Config, T5EncoderModel

from lasslab.models.lora import LoRAConfig, adapt, load_adapter, save_adapter, trainable_parameters
from lasslab.models.text import TextEncoder, load_text_encoder

TEXTS = ["add a dog barking", "remove the rain"]


class Letters:
    """A tokenizer of letters."""

    def __call__(self, texts, **_):
        from transformers import BatchEncoding

        length = max(map(len, texts))
        ids = torch.tensor([[ord(letter) % 50 + 1 for letter in text] + [0] * (length - len(text)) for text in texts])
        return BatchEncoding({"input_ids": ids, "attention_mask": (ids > 0).long()})


def tiny(kind: str) -> TextEncoder:
    torch.manual_seed(0)
    if kind == "t5":
        sizes = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
        return TextEncoder(Letters(), T5EncoderModel(T5Config(**sizes)), "tiny")
    sizes = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return TextEncoder(Letters(), BertModel(BertConfig(**sizes, intermediate_size=32)), "tiny")


@pytest.mark.parametrize("kind", ["t5", "bert"])
def test_at_first_it_answers_as_before_and_only_the_adapter_is_trainable(kind):
    before = tiny(kind)(TEXTS)
    adapted = adapt(tiny(kind), LoRAConfig(rank=3))
    assert torch.equal(adapted(TEXTS).tokens, before.tokens) and adapted.dim == 16
    trained, total = trainable_parameters(adapted.model)
    assert trained == 2 * 2 * 3 * (16 + 16), "two layers, query and value, A and B"
    assert 0 < trained < total


@pytest.mark.parametrize("kind", ["t5", "bert"])
def test_the_update_is_alpha_over_r_times_b_a(kind):
    adapted = adapt(tiny(kind), LoRAConfig(rank=2, alpha=6.0))
    name = {"t5": "q", "bert": "query"}[kind]
    layer = next(module for key, module in adapted.model.named_modules() if key.endswith(f".{name}"))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(b)
    x = torch.randn(5, 16)
    assert torch.allclose(layer(x), layer.base_layer(x) + 3.0 * x @ a.T @ b.T, atol=1e-5)


@pytest.mark.parametrize("kind", ["t5", "bert"])
def test_training_moves_the_adapter_and_nothing_else_and_it_comes_back(kind, tmp_path):
    adapted = adapt(tiny(kind), LoRAConfig(rank=2))
    adapted.model.train()
    optimiser = torch.optim.Adam([p for p in adapted.model.parameters() if p.requires_grad], lr=0.05)
    wanted = torch.randn(16)  # BERT ends in a LayerNorm: the mean of its output cannot be moved
    losses = []
    for _ in range(20):
        tokens = adapted.encode(*adapted.tokenise(TEXTS)).tokens
        loss = (tokens - wanted).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    adapted.model.eval()
    frozen = {name: p for name, p in adapted.model.named_parameters() if "lora_" not in name}
    plain = dict(tiny(kind).model.named_parameters())
    for name, parameter in frozen.items():
        key = name.removeprefix("base_model.model.").replace(".base_layer", "")
        assert torch.equal(parameter, plain[key]), name
    folder = save_adapter(adapted, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    about = json.loads((folder / "adapter_config.json").read_text())
    assert about["base_model_name_or_path"] == adapted.name, "no path of this machine in what ships"
    loaded = load_adapter(tiny(kind), tmp_path)
    assert torch.allclose(loaded(TEXTS).tokens, adapted(TEXTS).tokens, atol=1e-6)
    assert trainable_parameters(loaded.model)[0] == 0
    assert trainable_parameters(load_adapter(tiny(kind), tmp_path, trainable=True).model)[0] > 0


def test_minilm_is_adapted_by_its_default_names():
    adapted = adapt(load_text_encoder("minilm"))
    trained, total = trainable_parameters(adapted.model)
    assert trained == 6 * 2 * 8 * (384 + 384) and trained / total < 0.005
    assert adapted(TEXTS).tokens.shape[-1] == 384


def test_other_modules_may_be_named_and_unknown_ones_are_refused():
    adapted = adapt(tiny("t5"), LoRAConfig(rank=1, target_modules=("wi", "wo")))
    assert trainable_parameters(adapted.model)[0] == 2 * ((16 + 32) + (32 + 16))
    with pytest.raises(
        ValueError, match="finds no module to adapt \\(asked: query\\); linear layers are named .*q"
    ) as raised:
        adapt(tiny("t5"), LoRAConfig(target_modules=("query",)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"rank": 0}, "must be positive"), ({"alpha": 0.0}, "must be positive"), ({"dropout": 1.0}, "dropout")],
)
def test_impossible_sizes_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        LoRAConfig(**change)


def test_a_missing_or_foreign_adapter_is_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match="adapter_model.safetensors is missing: copy"):
        load_adapter(tiny("t5"), tmp_path)
    save_adapter(adapt(tiny("bert")), tmp_path)
    with pytest.raises(ValueError, match="is no adapter of the text encoder 'tiny'") as raised:
        load_adapter(tiny("t5"), tmp_path)
    assert "\n" not in str(raised.value)
