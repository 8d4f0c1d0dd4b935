"""How Hugging Face's models start: rotary positions and masks in what is computed, grouped values, gates."""

import math

import pytest
import torch
from reference.hf_models import FAMILIES

from skipless import SkiplessInit
from skipless.errors import InputError
from skipless.models import block_views, calibrate_, initialize_, inspect_init, inspect_tokens, remove_skips_
from skipless.models.starting.attention_diagonal import attention
from skipless.models.starting.first_tokens import first_tokens

TEXTS = [name for name, family in FAMILIES.items() if family.text]
ROTARY = [*TEXTS, "dinov3", "vit"]


def _eager_maps(model, inputs):
    """Attention matrices as the library's own eager attention gives them."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(inputs, output_attentions=True).attentions


@pytest.mark.parametrize("name", ROTARY)
def test_attention_in_context_is_the_models_own(name):
    family = FAMILIES[name]
    model = remove_skips_(family.build())
    inputs = family.inputs()
    expected = _eager_maps(model, inputs)
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        with torch.no_grad():
            x, views = first_tokens(model, block_views(model), inputs)
            for view, weights in zip(views, expected, strict=True):
                found = attention(view, view.attn_norm(x))
                torch.testing.assert_close(found, weights.double(), rtol=1e-6, atol=1e-6)
                x = view.run(x)


@pytest.mark.parametrize("name", TEXTS)
def test_a_language_model_is_calibrated_in_its_own_context(name):
    family = FAMILIES[name]
    model = remove_skips_(family.build())
    initialize_(model, SkiplessInit(0.0, 1.0, grouped="repeated"))
    calibrate_(model, 0.8)
    report = inspect_init(model)
    assert report.tokens == 32
    assert report.attention_diagonal[0] == pytest.approx(0.8, abs=0.15)
    seen = "with rotary positions and a causal mask" if family.kind == "llama" else "with a causal mask"
    assert (seen in str(report)) == (name != "bert")
    ids = family.inputs(count=12)
    calibrate_(model, 0.7, inputs=ids)
    again = inspect_init(model, inputs=ids)
    reached = again.attention_diagonal[: 1 if name == "bert" else 2]  # no scale reaches it in BERT's second block
    assert reached == pytest.approx([0.7] * len(reached), abs=0.02)
    assert again.token_cosine == tuple(block.cosine for block in inspect_tokens(model, ids).blocks)


def test_equal_tokens_under_a_causal_mask_leave_logits_alone():
    """Rows that see few tokens have a large diagonal whatever the scale is: it is not what the scale gives."""
    family = FAMILIES["llama"]
    model = remove_skips_(family.build(max_position_embeddings=256))
    initialize_(model, SkiplessInit(0.0, 1.0))
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.mul_(1e-9)
    before = model.model.layers[0].self_attn.q_proj.weight.clone()
    equal = torch.full((1, 24), 5)
    model.model.rotary_emb.inv_freq.zero_()
    calibrate_(model, 0.9, inputs=equal)
    torch.testing.assert_close(model.model.layers[0].self_attn.q_proj.weight, before)


def test_causal_masks_raise_the_diagonal_as_the_formula_says():
    """Logits of 0 give row i the diagonal 1 / i: on average H_n / n."""
    family = FAMILIES["llama"]
    model = remove_skips_(family.build())
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.zero_()
        model.model.layers[0].self_attn.q_proj.bias.zero_()
    found = inspect_init(model, tokens=20).blocks[0].diagonal
    assert found == pytest.approx([sum(1 / i for i in range(1, 21)) / 20] * 2, rel=1e-5)


def test_ids_that_a_model_does_not_take_are_refused(unchecked):
    family = FAMILIES["llama"]
    model = remove_skips_(family.build())
    for ids, told in (
        (torch.tensor([[31]]), "token ids from 31 to 31: the model has 0 to 30"),
        (torch.zeros(1, 33, dtype=torch.long), "33 token ids a row: the model takes 32"),
        (torch.zeros(1, 3), r"token ids of shape \(1, 3\), torch.float32: give integers"),
    ):
        with pytest.raises(InputError, match=told):
            inspect_init(model, inputs=ids)
    with pytest.raises(InputError, match="give images or inputs"):
        calibrate_(model, 0.5, images=torch.zeros(1, 3, 8, 8), inputs=torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(InputError, match="has 0 language models, not one"):
        calibrate_(FAMILIES["vit"].build(), 0.5, inputs=torch.zeros(1, 3, dtype=torch.long))


def test_grouped_values_are_refused_or_hold_as_many_directions_as_they_can():
    model = remove_skips_(FAMILIES["llama-grouped"].build())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(
        InputError, match="rank 8 at most, and cannot be a scaled rotation of d = 16; grouped='repeated'"
    ):
        initialize_(model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert SkiplessInit.for_model(model).grouped == "repeated"
    initialize_(model, SkiplessInit(c=2.0, grouped="repeated"))
    found = inspect_init(model, SkiplessInit(c=2.0)).blocks[0]
    assert found.kappa_vo == pytest.approx(1)
    assert found.scale_vo == pytest.approx(4)
    assert any("W_V W_O has rank 8, not d = 16" in flag for flag in found.flags)
    wide = remove_skips_(FAMILIES["qwen3"].build(num_key_value_heads=1))
    initialize_(wide)  # one key head of 16 holds all of d = 16
    assert inspect_init(wide).blocks[0].scale_vo == pytest.approx(9)


def test_gates_may_start_equal():
    model = remove_skips_(FAMILIES["llama"].build())
    initialize_(model, SkiplessInit(gates="equal"))
    for layer in model.model.layers:
        assert torch.equal(layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight)
    assert not any("MLP" in flag for flag in inspect_init(model, SkiplessInit(gates="equal")).flags)
    initialize_(model, SkiplessInit())
    assert not torch.equal(model.model.layers[0].mlp.gate_proj.weight, model.model.layers[0].mlp.up_proj.weight)
    with pytest.raises(InputError, match="gates='equal' is for mlp='orthogonal'"):
        SkiplessInit(gates="equal", mlp="mirrored")
    with pytest.raises(InputError, match="needs a pair of hidden units for each of its d = 16 directions"):
        initialize_(remove_skips_(FAMILIES["qwen2"].build()), SkiplessInit(mlp="mirrored"))


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "vit", "dinov2-registers", "dinov3"])
def test_our_scheme_suits_every_kind(name):
    family = FAMILIES[name]
    model = remove_skips_(family.build())
    initialize_(model, SkiplessInit.for_model(model))
    report = inspect_init(model, SkiplessInit.for_model(model))
    assert [flag for flag in report.flags if "kappa" in flag or "skip" in flag] == []
    assert all(math.isfinite(value) for value in report.attention_diagonal)


@pytest.mark.parametrize(("name", "last"), [("llama", 0.95), ("gpt2", 0.95), ("bert", 0.95), ("vit", 0.15)])
def test_language_models_start_near_the_identity_in_every_block(name, last):
    init = SkiplessInit.for_model(remove_skips_(FAMILIES[name].build()))
    assert init.diagonals(4)[0] == pytest.approx(0.95)
    assert init.diagonals(4)[-1] == pytest.approx(last)


@pytest.mark.parametrize("name", ["vit", "deit", "dinov2", "dinov2-registers", "dinov3"])
def test_positions_and_prefix_tokens_get_orthogonal_rows(name):
    from skipless.models import set_positions_
    from skipless.models.vit_view import find_vit

    model = FAMILIES[name].build()
    set_positions_(model, "orthogonal", generator=torch.Generator().manual_seed(0))
    found = find_vit(model)
    blank = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    projection = found.positions.weights[1]  # its bias is what blank images embed as
    rows = found.enter(blank).tokens[0].detach()
    rows[found.prefix :] -= projection.detach()
    gram = rows @ rows.T
    places = range(len(rows)) if found.positions.embedding is not None else range(found.prefix)
    chosen = gram[list(places)][:, list(places)]
    torch.testing.assert_close(chosen, torch.eye(len(chosen)).double() * chosen[0, 0], rtol=1e-5, atol=1e-5)


def test_the_librarys_own_initialisation_leaves_ours():
    model = remove_skips_(FAMILIES["llama"].build())
    initialize_(model)
    before = {key: value.clone() for key, value in model.model.layers.state_dict().items()}
    for module in model.modules():
        module._is_hf_initialized = False
    model.post_init()
    model.apply(model._init_weights)
    model.resize_token_embeddings(40)
    assert all(torch.equal(before[key], value) for key, value in model.model.layers.state_dict().items())


def test_a_model_on_the_meta_device_is_initialised_once_it_has_memory():
    family = FAMILIES["llama"]
    with torch.device("meta"):
        model = remove_skips_(type(family.build())(family.configuration()))
    with pytest.raises(InputError, match="on the meta device, where an initialisation is lost"):
        initialize_(model)
    model.to_empty(device="cpu")
    model.init_weights()
    initialize_(model, generator=torch.Generator().manual_seed(0))
    twin = initialize_(remove_skips_(family.build(dtype=torch.float32)), generator=torch.Generator().manual_seed(0))
    for key, value in twin.model.layers.state_dict().items():
        assert torch.equal(model.model.layers.state_dict()[key], value)
