"""Codebooks on A and B: their values, their bytes, and that they come back to the bit."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from reference import sine as twin
from safetensors.torch import load_file

from skipless.adapters import SineLoraConfig, load_sine, quantise_, sine_
from skipless.adapters.k_means import k_means, nearest
from skipless.adapters.packing import pack, unpack
from skipless.errors import InputError

X = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))
BITS = (1, 2, 3, 4, 5)
pytestmark = pytest.mark.filterwarnings(*twin.PEFT_WARNS)


def _factors(model: Any, adapter: str = "default") -> list[torch.Tensor]:
    layers = twin.layers(model).values()
    return [factor[adapter].weight for layer in layers for factor in (layer.lora_A, layer.lora_B)]


@pytest.mark.parametrize("bits", BITS)
def test_each_value_is_its_nearest_entry_and_each_entry_the_mean_of_its_values(bits) -> None:
    values = torch.randn(40, 50, generator=torch.Generator().manual_seed(bits)).double()
    codebook = k_means(values, 1 << bits)
    found = nearest(values, codebook)
    distance = (values[..., None] - codebook).abs()
    torch.testing.assert_close((values - found).abs(), distance.min(-1).values)
    for entry in codebook:
        assert values[found == entry].mean().item() == pytest.approx(entry.item(), abs=1e-12)


@pytest.mark.parametrize("bits", BITS)
def test_the_error_is_below_that_of_even_steps_and_falls_with_bits(bits) -> None:
    values = torch.randn(200, 150, generator=torch.Generator().manual_seed(bits))
    cost = twin.lloyd_cost(values, k_means(values, 1 << bits))
    even = torch.linspace(values.min().item(), values.max().item(), 1 << bits)
    assert cost < twin.lloyd_cost(values, even)
    assert cost < twin.lloyd_cost(values, k_means(values, 1 << bits - 1)) if bits > 1 else cost < 0.4
    # Of a Gaussian, the best possible: Max (1960), Table I.
    best = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497, 5: 0.002499}[bits]
    assert cost == pytest.approx(best * values.var().item(), rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_no_split_of_the_line_is_better(seed) -> None:
    """Against all ways to cut 9 values into 3 runs."""
    values = torch.randn(9, generator=torch.Generator().manual_seed(seed)).double() ** 3
    ordered = values.sort().values
    runs = [(ordered[:i], ordered[i:j], ordered[j:]) for i in range(1, 8) for j in range(i + 1, 9)]
    best = min(sum(((run - run.mean()) ** 2).sum().item() for run in cut) for cut in runs)
    assert 9 * twin.lloyd_cost(values, k_means(values, 3)) == pytest.approx(best)


def test_far_values_do_not_spoil_the_rest() -> None:
    values = torch.cat([torch.randn(5000, generator=torch.Generator().manual_seed(0)), torch.tensor([1e4, -3e4])])
    codebook = k_means(values, 16)
    assert {-3e4, 1e4} <= set(codebook.tolist())
    assert twin.lloyd_cost(values[:5000], codebook) < 0.02


def test_few_different_values_are_kept() -> None:
    values = torch.tensor([[0.5, -1.0, 0.5], [0.5, -1.0, 2.0]])
    codebook = k_means(values, 8)
    assert codebook.tolist() == [-1.0, 0.5, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert torch.equal(nearest(values, codebook), values)
    assert k_means(torch.zeros(3, 2), 4).tolist() == [0, 0, 0, 0]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8),
    st.tuples(st.integers(1, 7), st.integers(1, 9)),
    st.integers(0, 99),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
)
def test_packed_matrices_come_back_to_the_bit(bits, shape, seed, dtype) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    codebook = k_means(values, 1 << bits)
    matrix = nearest(values, codebook)
    packed = pack(matrix, codebook, "A")
    assert packed.numel() == 2 + (1 << bits) * dtype.itemsize + math.ceil(math.prod(shape) * bits / 8)
    again, same = unpack(packed, shape, "A")
    assert torch.equal(again, matrix)
    assert torch.equal(same, codebook)
    assert again.dtype == dtype


def test_bytes_of_another_matrix_are_refused() -> None:
    codebook = torch.tensor([0.0, 1.0])
    packed = pack(codebook[None], codebook, "A")
    for broken in (packed[..., :-1], packed[..., :1], torch.full_like(packed, 77)):
        with pytest.raises(InputError, match="bytes are no quantised matrix of shape"):
            unpack(broken, (1, 2), "A")


@pytest.mark.parametrize("bits", BITS)
def test_the_sine_comes_after_the_codebook(bits) -> None:
    model = twin.adapted().eval()
    before = [factor.detach().clone() for factor in _factors(model)]
    assert quantise_(model, bits) is model
    for old, new in zip(before, _factors(model), strict=True):
        assert len(new.unique()) <= 1 << bits
        assert torch.equal(new, nearest(old, k_means(old, 1 << bits)))
        assert not new.requires_grad
    changes = [twin.layer_delta(layer) for layer in twin.layers(model).values()]
    torch.testing.assert_close(model(X).double(), twin.mlp_output(model, X, changes), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("options", [{}, {"low_cpu_mem_usage": True}, {"autocast_adapter_dtype": False}])
def test_saved_and_loaded_to_the_bit(tmp_path, bits, dtype, options) -> None:
    model = quantise_(twin.adapted(dtype=dtype), bits)
    model.save_pretrained(tmp_path)
    for loaded in (
        PeftModel.from_pretrained(twin.mlp(dtype=dtype), tmp_path, **options),
        load_sine(twin.mlp(dtype=dtype), tmp_path),
    ):
        if not (options and dtype == torch.bfloat16):  # PEFT has A and B in bfloat16 then
            for one, other in zip(_factors(model), _factors(loaded), strict=True):
                assert torch.equal(one, other)
            assert torch.equal(loaded(X.to(dtype)), model(X.to(dtype)))
        loaded.save_pretrained(tmp_path / "again")
        loaded.load_state_dict(model.state_dict())
    first, again = (path / "adapter_model.safetensors" for path in (tmp_path, tmp_path / "again"))
    assert first.read_bytes() == again.read_bytes()


def test_files_are_as_small_as_bits_say(tmp_path) -> None:
    sizes = {}
    for bits in (None, 1, 4):
        base = torch.nn.Sequential(torch.nn.Linear(256, 512))
        model = sine_(get_peft_model(base, LoraConfig(r=16, target_modules=["0"], init_lora_weights=False)))
        quantise_(model, bits).save_pretrained(tmp_path / str(bits))
        state = load_file(tmp_path / str(bits) / "adapter_model.safetensors")
        sizes[bits] = sum(one.nbytes for one in state.values())
    count = 16 * (256 + 512)
    assert sizes == {None: 4 * count + 16, 1: count // 8 + 16 + 2 * (2 + 8), 4: count // 2 + 16 + 2 * (2 + 64)}


def test_trained_after_it_is_not_saved_as_what_it_was(tmp_path) -> None:
    model = quantise_(twin.adapted(), 2)
    _factors(model)[0].data[0, 0] += 0.1
    with pytest.raises(InputError, match="was changed after it was quantised: call quantise_ again"):
        model.save_pretrained(tmp_path)
    quantise_(model, None).save_pretrained(tmp_path)
    assert torch.equal(load_sine(twin.mlp(), tmp_path)(X), model(X))
    assert all(factor.requires_grad for factor in _factors(model))


def test_whole_weights_loaded_into_a_quantised_adapter_are_whole() -> None:
    model, other = quantise_(twin.adapted(), 2), twin.draw(twin.adapted(), seed=8)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model(X), other(X))
    model.state_dict()


def test_a_quantised_model_may_be_cast_and_saved(tmp_path) -> None:
    model = quantise_(twin.adapted(), 5).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    loaded = load_sine(twin.mlp(dtype=torch.bfloat16), tmp_path)
    for one, other in zip(_factors(model), _factors(loaded), strict=True):
        assert torch.equal(one.float(), other)


def test_only_the_named_adapter_is_quantised(tmp_path) -> None:
    model = twin.adapted()
    model.add_adapter("b", SineLoraConfig(r=3, target_modules=["0", "2"], init_lora_weights=False))
    before = [factor.clone() for factor in _factors(model)]
    quantise_(model, 1, "b")
    assert all(torch.equal(one, other) for one, other in zip(before, _factors(model), strict=True))
    assert all(len(factor.unique()) == 2 for factor in _factors(model, "b"))


@pytest.mark.parametrize("dora", [False, True])
def test_plain_lora_and_dora_get_the_same_values_and_pefts_files(tmp_path, dora) -> None:
    config = LoraConfig(r=3, target_modules=["0", "2"], init_lora_weights=False, use_dora=dora)
    model = quantise_(twin.draw(get_peft_model(twin.mlp(), config)), 2)
    assert all(len(factor.unique()) == 4 for factor in _factors(model))
    model.save_pretrained(tmp_path)
    assert torch.equal(PeftModel.from_pretrained(twin.mlp(), tmp_path)(X), model.eval()(X))


def test_what_cannot_be_quantised_is_refused() -> None:
    model = twin.adapted()
    for bits in (0, 9, -1):
        with pytest.raises(InputError, match=f"bits={bits}: give 1 to 8"):
            quantise_(model, bits)
    model.merge_adapter()
    with pytest.raises(InputError, match="is merged"):
        quantise_(model, 2)
    model.unmerge_adapter()
    _factors(model)[1].data[0, 0] = torch.nan
    with pytest.raises(InputError, match="B of adapter 'default' has values that are not finite"):
        quantise_(model, 2)
    embedded = get_peft_model(torch.nn.Sequential(torch.nn.Embedding(4, 3)), LoraConfig(r=2, target_modules=["0"]))
    with pytest.raises(InputError, match="embeddings are not quantised"):
        quantise_(embedded, 2)
