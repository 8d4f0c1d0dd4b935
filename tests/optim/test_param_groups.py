"""No parameter lost, none twice, and each with the decay that its kind asks for."""

import pytest
import timm
import torch
from torch import nn

from skipless.errors import InputError
from skipless.optim import OptimizerConfig, build_optimizer, check_complete, param_groups


def vit() -> nn.Module:
    size = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
    return timm.create_model("vit_tiny_patch16_224", reg_tokens=1, **size)


def by_group(model: nn.Module, groups: list[dict]) -> dict[tuple[float, int], set[str]]:
    names = {id(param): name for name, param in model.named_parameters()}
    return {(g["weight_decay"], g["split"]): {names[id(param)] for param in g["params"]} for g in groups}


def test_a_vit_falls_into_decaying_fused_and_free_parameters() -> None:
    model = vit()
    found = by_group(model, param_groups(model, weight_decay=0.05))
    assert found[0.05, 3] == {"blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight"}
    matrices = {"attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight"}
    inside = {f"blocks.{block}.{matrix}" for block in range(2) for matrix in matrices}
    assert found[0.05, 1] == inside | {"patch_embed.proj.weight", "head.weight"}
    everything = {name for name, _ in model.named_parameters()}
    assert found[0.0, 1] == everything - found[0.05, 1] - found[0.05, 3]
    assert {"cls_token", "pos_embed", "reg_token", "norm.weight", "blocks.0.attn.qkv.bias"} < found[0.0, 1]


def test_the_token_of_distillation_goes_with_the_class_token() -> None:
    size = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3}
    model = timm.create_model("deit_tiny_distilled_patch16_224", **size)
    spared = {"pos_embed", "cls_token", "dist_token"}
    assert spared == model.no_weight_decay() & {name for name, _ in model.named_parameters()}
    assert spared <= by_group(model, param_groups(model, weight_decay=0.05))[0.0, 1]
    config = OptimizerConfig()
    (free,) = (group for group in build_optimizer(model, config).param_groups if not group["weight_decay"])
    assert any(param is model.dist_token for param in free["params"])
    assert config.no_decay == ("pos_embed", "cls_token", "reg_token")  # what the records of runs say
    assert spared <= by_group(model, param_groups(model, weight_decay=0.05, no_decay=()))[0.05, 1]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_unsplit_groups_and_an_own_choice_of_names(weight_decay: float) -> None:
    model = vit()
    found = by_group(model, param_groups(model, weight_decay=weight_decay, no_decay=("weight",), split_qkv=False))
    assert all(split == 1 for _, split in found)
    assert sum(map(len, found.values())) == len(list(model.parameters()))
    if weight_decay:
        assert found[weight_decay, 1] == {"cls_token", "pos_embed", "reg_token"}


def test_muon_gets_the_weight_matrices_of_blocks_and_nothing_else() -> None:
    """Of timm's ViTs, convolutional and windowed models; tables of positions are no weights."""
    models = (
        vit(),
        timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1), embed_dim=8, num_heads=(2, 2), img_size=56),
        timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(4, 8, 8, 8), conv_mlp=False),
    )
    for model in models:
        groups = param_groups(model, weight_decay=0.1, use_muon=True)
        names = {id(p): name for name, p in model.named_parameters()}
        found = {names[id(p)]: group["use_muon"] for group in groups for p in group["params"]}
        assert found.keys() == set(names.values())
        for name, by_muon in found.items():
            own = name.rpartition(".")[2]
            inside = (
                bool({"blocks", "layers"} & set(name.split(".")))
                and own == "weight"
                and model.get_parameter(name).ndim == 2
            )
            assert by_muon == inside, name


def test_muon_leaves_embeddings_in_blocks_and_matrices_of_one_row() -> None:
    block = nn.ModuleDict({"table": nn.Embedding(4, 4), "gate": nn.Linear(4, 1, bias=False), "map": nn.Linear(4, 4)})
    model = nn.ModuleDict({"layers": nn.ModuleList([block]), "head": nn.Linear(4, 4)})
    mine = [group for group in param_groups(model, weight_decay=0.1, use_muon=True) if group["use_muon"]]
    assert [group["params"] for group in mine] == [[block["map"].weight]]
    assert all("use_muon" not in group for group in param_groups(model, weight_decay=0.1))


def test_multihead_attention_of_torch_is_fused_too() -> None:
    model = nn.MultiheadAttention(6, 2)
    assert by_group(model, param_groups(model, weight_decay=0.1))[0.1, 3] == {"in_proj_weight"}


def test_tied_parameters_come_once_and_frozen_ones_not_at_all() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[2].weight.requires_grad_(False)
    params = [param for group in param_groups(model, weight_decay=0.1) for param in group["params"]]
    assert len(params) == 4  # one weight, three biases
    assert len({id(param) for param in params}) == 4
    assert all(param is not model[2].weight for param in params)


def test_faults_name_their_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    first, second = ({"params": list(layer.parameters())} for layer in model)
    check_complete(model, [first, second])
    with pytest.raises(InputError, match=r"in no group: 1\.bias, 1\.weight"):
        check_complete(model, [first])
    with pytest.raises(InputError, match=r"more than once: 0\.bias, 0\.weight"):
        check_complete(model, [first, second, first])
    with pytest.raises(InputError, match="frozen or of another model: a parameter of another model"):
        check_complete(model, [first, second, {"params": [nn.Parameter(torch.ones(1))]}])
    model[1].weight.requires_grad_(False)
    with pytest.raises(InputError, match=r"frozen or of another model: 1\.weight"):
        check_complete(model, [first, second])


def test_bad_input_is_quoted() -> None:
    with pytest.raises(InputError, match=r"weight_decay=-0\.1"):
        param_groups(nn.Linear(2, 2), weight_decay=-0.1)
    with pytest.raises(InputError, match="Linear has no trainable parameter"):
        param_groups(nn.Linear(2, 2).requires_grad_(False), weight_decay=0.1)
    uneven = nn.ModuleDict({"qkv": nn.Linear(2, 4)})
    with pytest.raises(InputError, match=r"qkv\.weight of shape \(4, 2\) .* split_qkv=False"):
        param_groups(uneven, weight_decay=0.1)
    assert param_groups(uneven, weight_decay=0.1, split_qkv=False)
