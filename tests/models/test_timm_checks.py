"""What timm's own tests ask of each of its models and optimizers, asked anew of ours (docs/timm.md says what they are).

Small names stand for all: a twin's architecture is its residual model's, which timm checks.
"""

import copy
import inspect
import math

import pytest
import timm
import timm.optim
import timm.scheduler
import torch
from timm.layers import set_scriptable
from timm.models import get_notrace_functions, get_notrace_modules
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from skipless.models import REGISTERED, block_views
from skipless.models.adapters.timm_vit import SkiplessBlock
from skipless.optim import SOAP

NAMES = (
    "skipless_vit_tiny_patch16_224",
    "skipless_vit_tiny_patch14_224",
    "skipless_vit_small_patch14_reg4_dinov2",
    "skipless_vit_base_patch32_224",
)
# No singular value decomposition of a full width: what is asked does not depend on it.
SIZES = {"embed_dim": 48, "num_heads": 2, "depth": 3}
TRACER = {
    "leaf_modules": get_notrace_modules(),
    "autowrap_functions": get_notrace_functions(),
    "param_shapes_constant": True,
}


def made(name: str, **kwargs) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, **{**SIZES, **kwargs})


def side(name: str) -> int:
    """A few patches' width: sizes are fixed, so the model is built for it."""
    return 4 * int(name.split("patch")[1].split("_", maxsplit=1)[0])


def images(name: str, count: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, side(name), side(name), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def as_users_have_it(monkeypatch) -> None:
    """Without the type checker of these tests around the block's forward: tracing and scripting see the source."""
    monkeypatch.setattr(SkiplessBlock, "forward", inspect.unwrap(SkiplessBlock.forward))


@pytest.mark.parametrize("name", REGISTERED)
def test_every_twin_has_a_default_configuration(name: str) -> None:
    """All that timm's tests and tools read of it, equal to the residual model's, and no weights of that model."""
    config = timm.get_pretrained_cfg(name)
    assert config.architecture == name
    assert not config.has_weights
    assert not timm.is_model_pretrained(name)
    assert name not in timm.list_pretrained()
    assert name in timm.list_models("skipless_*", name_matches_cfg=True)
    assert (config.first_conv, config.classifier) == ("patch_embed.proj", "head")
    twin = timm.get_pretrained_cfg(name.removeprefix("skipless_"))
    for field in ("input_size", "mean", "std", "crop_pct", "interpolation", "num_classes", "fixed_input_size"):
        assert getattr(config, field) == timm.get_pretrained_cfg_value(name, field)
        if twin is not None:
            assert getattr(config, field) == getattr(twin, field), field


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_describes_the_model(name: str) -> None:
    model = made(name, img_size=side(name), num_classes=7)
    config, weights = model.pretrained_cfg, model.state_dict()
    assert model.default_cfg is config
    assert config["architecture"] == name
    assert not {"url", "file", "hf_hub_id", "tag", "license"} & {key for key, value in config.items() if value}
    assert f"{config['first_conv']}.weight" in weights
    assert f"{config['classifier']}.weight" in weights
    assert timm.data.resolve_data_config(model=model)["mean"] == config["mean"]
    with pytest.raises(RuntimeError, match=f"No pretrained weights exist for {name}"):
        timm.models.load_pretrained(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
class TestModel:
    """A check of timm's each."""

    def test_forward_and_checkpointing(self, name: str) -> None:
        model = made(name, img_size=side(name)).eval()
        found = model(images(name))
        assert found.isfinite().all()
        model.set_grad_checkpointing()
        torch.testing.assert_close(model(images(name)), found)

    def test_backward_reaches_every_parameter(self, name: str) -> None:
        model = made(name, img_size=side(name), num_classes=42).train()
        found = model(images(name, 2))
        found.mean().backward()
        assert found.shape == (2, 42)
        assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())

    def test_heads_and_pooling_can_be_taken_off(self, name: str) -> None:
        model = made(name, img_size=side(name), num_classes=5).eval()
        tokens = model.forward_features(images(name))
        pooled = model.forward_head(tokens, pre_logits=True)
        assert tokens.shape[-1] == model.num_features
        assert pooled.shape == (1, model.head_hidden_size)
        model.reset_classifier(0)
        assert model.num_classes == 0
        torch.testing.assert_close(model(images(name)), pooled)
        bare = made(name, img_size=side(name), num_classes=0, global_pool="").eval()
        assert bare(images(name)).shape == tokens.shape

    def test_intermediates_and_feature_extraction(self, name: str) -> None:
        model = made(name, img_size=side(name)).eval()
        last, maps = model.forward_intermediates(images(name), output_fmt="NCHW")
        info = timm.models.FeatureInfo(model.feature_info, len(model.feature_info))
        assert [m.shape[1] for m in maps] == info.channels()
        assert all(m.shape[-1] <= math.ceil(side(name) / r) + 1 for m, r in zip(maps, info.reduction(), strict=True))
        torch.testing.assert_close(last, model.forward_features(images(name)))
        getter = made(name, img_size=side(name), features_only=True, feature_cls="getter").eval()
        assert [m.shape for m in getter(images(name))] == [m.shape for m in maps]
        assert not any(view.skips for view in block_views(getter))

    def test_fx_gives_the_same_forwards_and_backwards(self, name: str, as_users_have_it) -> None:
        model = made(name, img_size=side(name), num_classes=42).eval()
        found = model(images(name))
        traced = extractor(model)
        assert torch.equal(next(iter(traced(images(name)).values())), found)
        traced.train()
        next(iter(traced(images(name, 2)).values())).mean().backward()
        assert all(parameter.grad is not None for parameter in traced.parameters())

    @pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
    @pytest.mark.parametrize("traced", [False, True])
    def test_torchscript(self, name: str, traced: bool, as_users_have_it) -> None:
        with set_scriptable(True):
            model = made(name, img_size=side(name), num_classes=42).eval()
        scripted = torch.jit.script(extractor(model) if traced else model)
        found = scripted(images(name))
        torch.testing.assert_close(next(iter(found.values())) if traced else found, model(images(name)))


def extractor(model: nn.Module) -> nn.Module:
    """The model as a graph, by torchvision's tracer with what timm says must not be traced."""
    train, evaluation = get_graph_node_names(model, tracer_kwargs=TRACER)
    return create_feature_extractor(
        model, train_return_nodes=[train[-1]], eval_return_nodes=[evaluation[-1]], tracer_kwargs=TRACER
    )


def quadratic(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return (weight.mv(torch.linspace(-1, 1, weight.shape[1])) + bias).square().sum()


def parameters(seed: int = 0) -> tuple[nn.Parameter, nn.Parameter]:
    draws = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(10, 5, generator=draws)), nn.Parameter(torch.randn(10, generator=draws))


def steps(optimizer: torch.optim.Optimizer, weight: torch.Tensor, bias: torch.Tensor, count: int) -> float:
    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = quadratic(weight, bias)
        found.backward()
        return found

    for _ in range(count):
        optimizer.step(loss)
    return quadratic(weight, bias).item()


@pytest.mark.usefixtures("unchecked")  # a closure may give a tensor, as timm's do
class TestSoapInTimm:
    """timm's conventions of an optimizer in its factory."""

    def test_it_is_listed_and_described(self) -> None:
        assert "soap" in timm.optim.list_optimizers()
        info = timm.optim.get_optimizer_info("soap")
        assert (info.has_betas, info.num_betas, info.has_eps, info.has_momentum) == (True, 2, True, False)
        assert not info.second_order
        assert timm.optim.get_optimizer_class("soap", bind_defaults=False) is SOAP
        assert dict(timm.optim.list_optimizers("soap", with_description=True))["soap"]

    @pytest.mark.parametrize("grouped", ["both", "two groups", "one group", "no rate"])
    def test_it_descends_however_parameters_are_given(self, grouped: str) -> None:
        weight, bias = parameters()
        rates = {} if grouped == "no rate" else {"lr": 1e-3}
        given = {
            "both": [weight, bias],
            "two groups": [{"params": [weight]}, {"params": [bias], "lr": 1e-2}],
            "one group": [{"params": [bias], "lr": 1e-2}],
            "no rate": [{"params": [bias], "lr": 1e-2}],
        }[grouped]
        optimizer = timm.optim.create_optimizer_v2(given, "soap", **rates)
        assert "SOAP" in repr(optimizer)
        before = quadratic(weight, bias).item()
        assert steps(optimizer, weight, bias, 200) < before

    def test_its_state_moves_to_another(self) -> None:
        weight, bias = parameters()
        optimizer = timm.optim.create_optimizer_v2([weight, bias], "soap", lr=1e-2)
        steps(optimizer, weight, bias, 20)
        others = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())
        other = timm.optim.create_optimizer_v2(list(others), "soap", lr=1e-2)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for _ in range(20):
            steps(optimizer, weight, bias, 1)
            steps(other, *others, 1)
            assert torch.equal(weight, others[0])
            assert torch.equal(bias, others[1])

    @pytest.mark.parametrize("kwargs", [{}, {"layer_decay": 0.7}, {"filter_bias_and_bn": False}, {"momentum": 0.8}])
    def test_a_model_is_grouped_as_timm_does(self, kwargs: dict) -> None:
        model = made(NAMES[0], img_size=64, num_classes=5)
        options = {"lr": 1e-3, "weight_decay": 0.05, "betas": (0.9, 0.95), "eps": 1e-7, **kwargs}
        soap = timm.optim.create_optimizer_v2(model, "soap", **options)
        adamw = timm.optim.create_optimizer_v2(model, "adamw", **options)
        for ours, theirs in zip(soap.param_groups, adamw.param_groups, strict=True):
            shared = ("weight_decay", "lr", "lr_scale", "betas", "eps")
            assert {key: ours.get(key) for key in shared} == {key: theirs.get(key) for key in shared}
            assert [id(p) for p in ours["params"]] == [id(p) for p in theirs["params"]]
        assert descends(model, soap)

    def test_lookahead_and_schedules_wrap_it(self) -> None:
        model = made(NAMES[0], img_size=64, num_classes=5)
        optimizer = timm.optim.create_optimizer_v2(model, "lookahead_soap", lr=1e-3)
        schedule, _ = timm.scheduler.create_scheduler_v2(optimizer, num_epochs=4, warmup_epochs=1, warmup_lr=1e-5)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-5)
        schedule.step(1)
        assert optimizer.param_groups[0]["lr"] > 5e-4
        assert descends(model, optimizer)

    def test_the_command_lines_arguments(self) -> None:
        """`create_optimizer`, which timm's train.py uses."""
        from argparse import Namespace

        named = {
            "opt": "soap",
            "lr": 1e-3,
            "weight_decay": 0.1,
            "momentum": 0.9,
            "opt_eps": 1e-7,
            "opt_betas": [0.9, 0.9],
        }
        model = made(NAMES[0], img_size=64, num_classes=5)
        optimizer = timm.optim.create_optimizer(Namespace(**named, opt_args={"precondition_frequency": 3}), model)
        assert {group["precondition_frequency"] for group in optimizer.param_groups} == {3}
        assert descends(model, optimizer)


def descends(model: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
    pixels = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = model(pixels).square().mean()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    return losses[-1] < losses[0]
