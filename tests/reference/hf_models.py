"""Tiny random models of every Hugging Face family that is known, with inputs for them."""

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**TINY, "intermediate_size": 24, "vocab_size": 31, "max_position_embeddings": 32, "attention_bias": True}
IMAGE = {**TINY, "image_size": 8, "patch_size": 4, "num_channels": 3}
IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


@dataclass(frozen=True)
class Family:
    """A tiny model of one class.

    Attributes:
        name: the model's class.
        config: the configuration's class.
        sizes: its fields.
        kind: the formulas that its blocks follow (`reference.hf_twins`).
    """

    name: str
    config: str
    sizes: dict[str, Any]
    kind: str

    @property
    def text(self) -> bool:
        return "vocab_size" in self.sizes

    @property
    def generates(self) -> bool:
        return self.text and self.kind != "bert"

    def configuration(self, **more: Any) -> Any:
        return getattr(transformers, self.config)(**{**self.sizes, **more})

    def build(self, seed: int = 0, dtype: torch.dtype = torch.float64, **more: Any) -> nn.Module:
        torch.manual_seed(seed)
        model = getattr(transformers, self.name)(self.configuration(**more))
        for name, parameter in model.named_parameters():  # so that biases, norms and LayerScale show in what comes out
            if parameter.ndim == 1:
                nn.init.normal_(parameter, 1.0 if "norm" in name.lower() or "lambda" in name else 0.0, 0.2)
            else:
                nn.init.normal_(parameter, 0.0, 0.3)
        return model.to(dtype).eval()

    def inputs(self, seed: int = 0, dtype: torch.dtype = torch.float64, count: int = 7) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        if self.text:
            return torch.randint(3, self.sizes["vocab_size"], (2, count), generator=generator)
        return torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype)


def _llama(name: str, **sizes: Any) -> Family:
    return Family(f"{name}ForCausalLM", f"{name}Config", {**TEXT, **IDS, **sizes}, "llama")


FAMILIES = {
    "llama": _llama("Llama", num_key_value_heads=2, mlp_bias=True),
    "llama-grouped": _llama("Llama", num_key_value_heads=1, attention_bias=False, tie_word_embeddings=True),
    "mistral": _llama("Mistral", num_key_value_heads=1, head_dim=8, sliding_window=4),
    "qwen2": _llama("Qwen2", num_key_value_heads=2),
    "qwen3": _llama("Qwen3", num_key_value_heads=2, head_dim=16),
    "gpt2": Family(
        "GPT2LMHeadModel",
        "GPT2Config",
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 31, "n_positions": 32, "resid_pdrop": 0.0, **IDS},
        "gpt2",
    ),
    "bert": Family("BertForMaskedLM", "BertConfig", {**TEXT, **IDS, "hidden_dropout_prob": 0.0}, "bert"),
    "vit": Family("ViTForImageClassification", "ViTConfig", {**IMAGE, "intermediate_size": 24}, "vit"),
    "deit": Family("DeiTForImageClassification", "DeiTConfig", {**IMAGE, "intermediate_size": 24}, "vit"),
    "dinov2": Family("Dinov2ForImageClassification", "Dinov2Config", {**IMAGE, "mlp_ratio": 2}, "dino"),
    "dinov2-registers": Family(
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        {**IMAGE, "num_register_tokens": 2, "use_swiglu_ffn": True},
        "dino",
    ),
    "dinov3": Family(
        "DINOv3ViTModel", "DINOv3ViTConfig", {**IMAGE, "intermediate_size": 24, "num_register_tokens": 2}, "dino"
    ),
    "dinov3-gated": Family(
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {**IMAGE, "intermediate_size": 24, "num_register_tokens": 1, "use_gated_mlp": True},
        "dino",
    ),
}
