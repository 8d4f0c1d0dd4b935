"""Conditioning of language models: what is reported is what dense factorisations of autograd's Jacobians give."""

import copy
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from reference.hf_models import FAMILIES
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from skipless.conditioning import check_assumptions, measure_conditioning, param_jacobian
from skipless.conditioning.measurement.block_inputs import block_inputs
from skipless.conditioning.measurement.network_jacobian import Rows, network_conditioning
from skipless.errors import InputError
from skipless.models import block_views, remove_skips_

TEXTS = [name for name, family in FAMILIES.items() if family.text]


def kappa(matrix: Tensor) -> float:
    s = torch.linalg.svdvals(matrix)
    return (s[0] / s[-1]).item()


def attention_of(model: nn.Module, ids: Tensor, at: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A block's attention as the model calls it, and its input tokens, watched in the library's own forward."""
    seen = {}
    block = block_views(model)[at].block
    bert = hasattr(block, "attention")
    module = block.attention.self if bert else block_views(model)[at].attn

    def watch(_, args, kwargs):
        given = dict(kwargs)
        seen["x"] = (args[0] if args else given.pop("hidden_states")).detach().clone()
        seen["rest"] = {key: value for key, value in given.items() if "cache" not in key and "past" not in key}

    handle = module.register_forward_pre_hook(watch, with_kwargs=True)
    with torch.no_grad():
        model(ids)
    handle.remove()

    def attend(tokens: Tensor) -> Tensor:
        found = module(tokens, **seen["rest"])[0]
        return block.attention.output.dense(found) if bert else found

    return attend, seen["x"]


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", TEXTS)
def test_kappas_are_those_of_dense_jacobians(name: str, implementation: str):
    model, ids = FAMILIES[name].build(), FAMILIES[name].inputs(count=5)[:1]
    model.set_attn_implementation(implementation)
    remove_skips_(model)
    block = measure_conditioning(model, inputs=ids, blocks=[1]).blocks[0]
    attend, x = attention_of(model, ids, 1)
    with sdpa_kernel(SDPBackend.MATH):
        dense = torch.autograd.functional.jacobian(attend, x).reshape(x.numel(), x.numel())
    if name != "bert":  # later tokens are not seen
        assert not dense.reshape(5, 16, 5, 16)[0, :, 1:].any()
    close = 1e-2 if implementation == "eager" else 1e-5  # eager attention has its softmax in float32
    expected = kappa(dense)
    if expected < 1e10:
        assert block.attn["skipless"].kappa.value == pytest.approx(expected, rel=close)
    else:
        assert not block.attn["skipless"].kappa.known
    assert block.attn["skip"].kappa.value == pytest.approx(kappa(dense + torch.eye(len(dense))), rel=close)
    assert block.heads is not None


@pytest.mark.parametrize("name", TEXTS)
def test_inputs_are_those_of_the_forward_pass(name: str):
    model, ids = remove_skips_(FAMILIES[name].build()), FAMILIES[name].inputs()
    found = block_inputs(model, ids)
    for each in found:
        _, x = attention_of(model, ids, each.index)
        torch.testing.assert_close(each.attn, x)
    with torch.no_grad():
        for each, following in pairwise(found):
            torch.testing.assert_close(each.view.run(each.attn_raw), following.attn_raw)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_network_is_measured_at_token_ids(name: str):
    model, ids = remove_skips_(FAMILIES[name].build()), FAMILIES[name].inputs()
    choice = Rows(1, 2, 3)
    twin = copy.deepcopy(model).base_model
    setattr(twin, "norm" if name == "llama" else "ln_f", nn.Identity())
    blocks = {id(p) for view in block_views(twin) for p in view.block.parameters()}
    weights = {key: value.detach() for key, value in twin.named_parameters() if id(value) in blocks}

    def f(values: dict) -> Tensor:
        y = torch.func.functional_call(twin, values, (ids[:1],), {"use_cache": False}).last_hidden_state
        return y[:, [0, 4]][..., [0, 5, 11]].flatten()

    with sdpa_kernel(SDPBackend.MATH):
        expected = torch.cat([part.reshape(6, -1) for part in torch.func.jacrev(f)(weights).values()], dim=1)
    found = network_conditioning(model, ids, choice)
    assert found.spectrum.shape == expected.shape
    assert found.spectrum.kappa.value == pytest.approx(kappa(expected), rel=1e-5)
    rows = param_jacobian(model, ids[:1], tokens=(0, 4), outputs=(0, 5, 11))
    torch.testing.assert_close(rows.matvec(expected[2]), expected @ expected[2], rtol=1e-4, atol=1e-5)
    assert len(check_assumptions(model, ids, choice).sub_blocks) == 4


def test_a_report_says_that_it_is_of_texts():
    model, ids = FAMILIES["llama"].build(dtype=torch.float32), FAMILIES["llama"].inputs()
    report = measure_conditioning(model, ids, dtype=torch.float64, parts=["attn"])
    assert "median of 2 texts, float64" in str(report)
    assert report.as_json()["kind"] == "text"
    assert report.blocks[0].name == "model.layers.0"
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("llama", {}, "give images, or inputs, token ids"),
        ("llama", {"images": torch.zeros(1, 3, 8, 8, dtype=torch.float64)}, "is a language model: give inputs"),
        ("llama", {"inputs": torch.tensor([[31]])}, "token ids from 31 to 31: the model has 0 to 30"),
        ("llama", {"inputs": torch.zeros(1, 33, dtype=torch.long)}, "33 token ids a row: the model takes 32"),
        ("llama", {"inputs": torch.zeros(0, 3, dtype=torch.long)}, "token ids of shape (0, 3)"),
        ("llama", {"inputs": torch.zeros(1, 3, dtype=torch.long, device="meta")}, "token ids are on the meta device"),
        ("llama", {"inputs": torch.zeros(1, 7, dtype=torch.long), "tokens": 3}, "takes tokens in their places"),
        ("vit", {"inputs": torch.zeros(1, 3, dtype=torch.long)}, "has 0 language models"),
    ],
)
def test_bad_input_is_refused_in_words(name: str, given: dict, message: str, unchecked):
    with pytest.raises(InputError) as refused:
        measure_conditioning(FAMILIES[name].build(), **given)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
