"""Hugging Face's own common model tests, on a residual and on a skipless Llama and ViT: what passes, and what does not.

    pip download transformers==5.24.0 --no-binary transformers --no-deps
    tar xzf transformers-5.24.0.tar.gz
    pip install parameterized
    python benchmarks/hf_common_tests.py transformers-5.24.0/tests --out benchmarks/results/hf_common_tests.md

The wheel has no tests; the source distribution has `tests/test_modeling_common.py`, without those of generation and of
exporters, whose mixins are left empty here. A skipless model is made by its configuration alone, as a saved one is.
"""

import argparse
import platform
import sys
import types
import unittest
from pathlib import Path

import torch
import transformers

import skipless  # its hooks make the models skipless
from skipless.models.surgery import block_views

SKIPLESS = {"sub_blocks": ["attn", "mlp"], "layer_scale": "remove"}
BATCH, LENGTH, VOCABULARY, WIDTH, HEADS, BLOCKS, IMAGE, PATCH = 3, 7, 99, 32, 4, 2, 30, 2


class Tester:
    """Tiny configurations and inputs, in the form that the common tests ask for."""

    is_training = True
    batch_size, num_hidden_layers, num_attention_heads, hidden_size = BATCH, BLOCKS, HEADS, WIDTH
    num_labels = 3

    def __init__(self, skips: bool) -> None:
        self.skips = skips

    def get_config(self):
        """The configuration; that of a skipless model says so."""
        config = self.made()
        if not self.skips:
            config.skipless = dict(SKIPLESS)
        return config

    def prepare_config_and_inputs_for_common(self):
        """A configuration, and inputs by name."""
        return self.get_config(), self.inputs()


class LlamaTester(Tester):
    """A causal model."""

    seq_length = LENGTH

    def made(self):
        """Llama, grouped heads as HF's own tester has them."""
        return transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=BLOCKS,
            num_attention_heads=HEADS, num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0,
        )  # fmt: skip

    def inputs(self):
        """Token ids and a mask."""
        ids = torch.randint(1, VOCABULARY, (BATCH, LENGTH))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class ViTTester(Tester):
    """An image model."""

    image_size, patch_size = IMAGE, PATCH
    num_masks, mask_length = (IMAGE // PATCH) ** 2 // 2, (IMAGE // PATCH) ** 2
    seq_length = (IMAGE // PATCH) ** 2 + 1

    def made(self):
        """ViT."""
        return transformers.ViTConfig(
            image_size=IMAGE, patch_size=PATCH, hidden_size=WIDTH, intermediate_size=37, num_hidden_layers=BLOCKS,
            num_attention_heads=HEADS, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip

    def inputs(self):
        """Normalised images."""
        return {"pixel_values": torch.randn(BATCH, 3, IMAGE, IMAGE)}


FAMILIES = {
    "Llama": (LlamaTester, ("LlamaModel", "LlamaForCausalLM")),
    "ViT": (ViTTester, ("ViTModel", "ViTForImageClassification")),
}

# Tests of this file about what is left empty here, and those that the library's own tests of the family override.
OVERRIDDEN = {
    "Llama": ("test_generation_tester_mixin_inheritance",),
    "ViT": ("test_model_get_set_embeddings",),  # its input embedding is a convolution
}


def load_mixin(tests: Path) -> type:
    """The mixin of `test_modeling_common.py`, its package made of that folder, with empty mixins where files lack."""
    sys.path.insert(0, str(tests.resolve().parent))
    for module, name in (
        ("exporters.test_export", "ExportTesterMixin"),
        ("generation.test_utils", "GenerationTesterMixin"),
    ):
        package, _, _ = module.partition(".")
        sys.modules.setdefault(f"tests.{package}", types.ModuleType(f"tests.{package}"))
        stub = types.ModuleType(f"tests.{module}")
        setattr(stub, name, type(name, (), {}))
        sys.modules[f"tests.{module}"] = stub
    from tests.test_modeling_common import ModelTesterMixin

    return ModelTesterMixin


def run_family(mixin: type, family: str, *, skips: bool) -> dict[str, tuple[str, str]]:
    """Outcome and reason of each test: passed, skipped (by the test itself) or failed."""
    tester, classes = FAMILIES[family]

    def set_up(self) -> None:
        torch.manual_seed(0)
        self.model_tester = tester(skips)

    body = {
        "all_model_classes": tuple(getattr(transformers, name) for name in classes),
        "setUp": set_up,
        "test_resize_embeddings": family == "Llama",
        **dict.fromkeys(OVERRIDDEN[family]),
    }
    case = type(f"{family}Test", (mixin, unittest.TestCase), body)
    config = tester(skips).get_config()
    made = body["all_model_classes"][0](config)
    assert all(bool(view.skips) == skips for view in block_views(made)), "the model is not what it should be"
    found = {}
    for test in unittest.defaultTestLoader.loadTestsFromTestCase(case):
        result = unittest.TestResult()
        test.run(result)
        name = test.id().rpartition(".")[2]
        if result.skipped:
            found[name] = ("skipped", result.skipped[0][1])
        elif result.errors or result.failures:
            found[name] = ("failed", (result.errors + result.failures)[0][1].strip().splitlines()[-1])
        else:
            found[name] = ("passed", "")
    return found


def report(found: dict[str, tuple[dict, dict]]) -> str:
    """A table of counts, and every test whose outcome differs or which fails, with the reason."""
    lines = [
        "# Hugging Face's common model tests on skipless models",
        "",
        f"transformers {transformers.__version__}, torch {torch.__version__}, {platform.machine()} (CPU), skipless "
        f"{skipless.__version__}. Tests that need a GPU, the hub or another library skip themselves.",
        "",
        "| family | skips | passed | skipped | failed |",
        "|---|---|--:|--:|--:|",
    ]
    for family, pair in found.items():
        for name, outcomes in zip(("with", "without"), pair, strict=True):
            counts = [sum(state == one for state, _ in outcomes.values()) for one in ("passed", "skipped", "failed")]
            lines.append(f"| {family} | {name} | " + " | ".join(map(str, counts)) + " |")
    lines += ["", "| family | test | with skips | without | reason |", "|---|---|---|---|---|"]
    for family, (residual, bare) in found.items():
        for name, (state, reason) in sorted(bare.items()):
            if state == "failed" or residual[name][0] != state:
                why = (reason or residual[name][1]).replace("|", "\\|")[:300]
                lines.append(f"| {family} | `{name}` | {residual[name][0]} | {state} | {why} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run them and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", type=Path, help="the tests folder of transformers' source distribution")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    mixin = load_mixin(asked.tests)
    found = {family: tuple(run_family(mixin, family, skips=skips) for skips in (True, False)) for family in FAMILIES}
    text = report(found)
    print(text)
    if asked.out is not None:
        asked.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
