import threading
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Generator, nn

from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models import block_views, initialize_, inspect_init, load_timm, remove_skips_
from skipless.models.libraries import timm_factory
from skipless.models.starting import initialization
from skipless.recipes.export import Exported

NAME = "skipless_vit_tiny_patch16_224"
LARGE = {"img_size": 32, "embed_dim": 256, "num_heads": 4, "depth": 6, "num_classes": 0}
SMALL = {"img_size": 32, "embed_dim": 48, "num_heads": 2, "depth": 2, "num_classes": 5}
SCHEME = SkiplessInit(1.8, 1.0, 3.0)


def large() -> nn.Module:
    return remove_skips_(timm.create_model("vit_tiny_patch16_224", **LARGE)).double()


@pytest.fixture
def threads() -> Callable[[int], None]:
    return torch.set_num_threads


def test_threads_give_the_weights_that_one_gives(threads) -> None:
    models = []
    for count in (1, 3):
        threads(count)
        models.append(initialize_(large(), SCHEME, generator=Generator().manual_seed(0)))
        assert torch.get_num_threads() == count
    threads(1)
    for first, second in zip(*(block_views(model) for model in models), strict=True):
        for a, b in zip(first.maps, second.maps, strict=True):
            torch.testing.assert_close(a.w, b.w, atol=1e-10, rtol=0)
    assert inspect_init(models[1], SCHEME).flags == ()


def test_draws_follow_the_order_of_the_generator(threads) -> None:
    """What a generator gives afterwards, and what each block gets, do not depend on which thread is ready first."""
    threads(3)
    generator, twin = Generator().manual_seed(0), Generator().manual_seed(0)
    model = initialize_(large(), SCHEME, generator=generator)
    threads(1)
    for view in block_views(model):
        w_q, w_k = SCHEME.query_key(view.dim, view.heads, view.head_dim, view.key_heads, twin)
        w_v, w_o = SCHEME.value_output(view.dim, view.dim, twin)
        maps = [SCHEME.mlp_map(*linear.w.shape, twin) for linear in (*view.mlp_in, view.mlp_out)]
        for linear, w in zip(view.maps, (w_q, w_k, w_v, w_o, *maps), strict=True):
            torch.testing.assert_close(linear.w, w, atol=1e-10, rtol=0)
    assert torch.equal(torch.rand(2, generator=generator), torch.rand(2, generator=twin))


def test_a_failure_in_a_thread_is_raised_and_leaves_none_behind(threads, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise torch.linalg.LinAlgError("no convergence")

    monkeypatch.setattr(torch.linalg, "svd", fail)
    threads(2)
    before = threading.active_count()
    with pytest.raises(torch.linalg.LinAlgError, match="no convergence"):
        initialize_(large(), SCHEME)
    assert torch.get_num_threads() == 2
    assert threading.active_count() == before
    threads(1)


def test_small_models_are_initialised_without_threads(threads, monkeypatch) -> None:
    """Their weights keep the bits that recorded runs had, which a library's other thread count could change."""
    monkeypatch.setattr(initialization, "ThreadPoolExecutor", None)
    threads(2)
    timm.create_model(NAME, **SMALL)
    threads(1)


@pytest.mark.parametrize("generator", [None, 3])
def test_the_context_of_a_device_does_not_reach_the_draws(generator: int | None) -> None:
    """A user who builds a model within `with torch.device(...)` gets the weights that others get."""
    models = []
    for place in ("cpu", "meta"):
        model, drawn = large(), None if generator is None else Generator().manual_seed(generator)
        with torch.random.fork_rng(devices=[]), torch.device(place):
            torch.default_generator.manual_seed(5)
            models.append(initialize_(model, SCHEME, generator=drawn))
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert a.shape == b.shape
    assert torch.equal(models[0].blocks[3].mlp.fc1.weight, models[1].blocks[3].mlp.fc1.weight)


def test_a_device_can_be_given() -> None:
    model = initialize_(large(), SCHEME, generator=Generator().manual_seed(0), device="cpu")
    twin = initialize_(large(), SCHEME, generator=Generator().manual_seed(0), device=torch.device("cpu"))
    assert torch.equal(model.blocks[5].attn.qkv.weight, twin.blocks[5].attn.qkv.weight)


def test_a_model_on_a_device_gets_the_weights_of_the_cpu(device) -> None:
    sizes = {**LARGE, "embed_dim": 768, "num_heads": 12, "depth": 1}
    models = [remove_skips_(timm.create_model("vit_tiny_patch16_224", **sizes)).double() for _ in range(2)]
    on_cpu = initialize_(models[0], SCHEME, generator=Generator().manual_seed(0))
    there = initialize_(models[1].to(device), SCHEME, generator=Generator().manual_seed(0))
    for name, weight in on_cpu.state_dict().items():
        if name.startswith("blocks"):
            torch.testing.assert_close(there.state_dict()[name].cpu(), weight, atol=1e-7, rtol=0)


class TestProgress:
    def test_nothing_is_shown_where_nobody_looks(self, capsys, monkeypatch) -> None:
        monkeypatch.setattr(initialization, "_QUIET_S", 0.0)
        initialize_(large(), SCHEME)
        assert capsys.readouterr() == ("", "")

    def test_lines_are_written_if_asked_for(self, capsys) -> None:
        initialize_(large(), SCHEME, progress=True)
        out, err = capsys.readouterr()
        assert (out, err) == ("", "initialising blocks: 6 of 6\n")

    def test_a_terminal_shows_a_bar_from_the_third_second_on(self, capsys, monkeypatch) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
        initialize_(large(), SCHEME)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(initialization, "_QUIET_S", 1e-9)
        initialize_(large(), SCHEME)
        assert "initialising blocks" in capsys.readouterr().err
        initialize_(large(), SCHEME, progress=False)
        assert capsys.readouterr().err == ""


class TestWeightsThatAreLoaded:
    @pytest.fixture
    def saved(self, tmp_path) -> str:
        path = tmp_path / "w.pth"
        torch.save(timm.create_model(NAME, **SMALL).state_dict(), path)
        return str(path)

    @pytest.fixture
    def initialised(self, monkeypatch) -> list[nn.Module]:
        seen: list[nn.Module] = []
        monkeypatch.setattr(timm_factory, "initialize_", lambda model, *_, **__: seen.append(model) or model)
        return seen

    def test_are_not_drawn_first(self, saved, initialised) -> None:
        timm.create_model(NAME, checkpoint_path=saved, **SMALL)
        timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay={"file": saved, "num_classes": 5}, **SMALL)
        timm.create_model(NAME, init=False, **SMALL).load_state_dict(torch.load(saved, weights_only=True))
        load_timm(NAME, blank=True, **SMALL)
        assert initialised == []
        timm.create_model(NAME, **SMALL)
        timm.create_model(NAME, init=None, **SMALL)
        timm.create_model(NAME, init=SCHEME, **SMALL)
        timm.create_model(NAME, checkpoint_path="", **SMALL)
        assert len(initialised) == 4

    def test_a_part_of_a_model_that_is_loaded_is_not_taken_for_it(self, saved, initialised) -> None:
        """The file holds the whole model's weights, and perhaps none of the part."""

        def whole(pretrained: bool = False, **_: object) -> nn.Module:
            return timm.model_entrypoint(NAME)(**SMALL)

        timm.models._registry._model_entrypoints["whole_of_twin"] = whole
        try:
            timm.create_model("whole_of_twin", checkpoint_path=saved)
        finally:
            del timm.models._registry._model_entrypoints["whole_of_twin"]
        assert len(initialised) == 1

    def test_a_file_that_may_lack_blocks_is_refused(self, saved) -> None:
        overlay = {"file": saved, "num_classes": 5}
        with pytest.raises(InputError, match="pretrained_strict=False of skipless_vit_tiny"):
            timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=overlay, pretrained_strict=False, **SMALL)

    def test_another_function_of_the_factorys_name_is_not_taken_for_it(self, saved, initialised) -> None:
        def create_model(checkpoint_path: str) -> nn.Module:
            return timm.model_entrypoint(NAME)(**SMALL)

        create_model(checkpoint_path=saved)
        assert len(initialised) == 1

    def test_what_export_prints_does_not_draw(self, tmp_path, saved, initialised) -> None:
        from safetensors.torch import save_file

        weights = torch.load(saved, weights_only=True)
        weights = {name: value for name, value in weights.items() if not name.startswith("head.")}
        save_file(weights, tmp_path / "w.safetensors")
        kwargs = {name: value for name, value in SMALL.items() if name != "num_classes"}
        scope: dict = {}
        exec(Exported(tmp_path / "w.safetensors", NAME, kwargs).python, scope)
        assert initialised == []
        assert torch.equal(scope["model"].blocks[0].attn.qkv.weight, weights["blocks.0.attn.qkv.weight"])
        residual = Exported(tmp_path / "w.safetensors", "vit_tiny_patch16_224", kwargs).python
        assert "init" not in residual.replace("initial", "")

    def test_without_init_blocks_keep_timms_own(self) -> None:
        torch.manual_seed(0)
        model = timm.create_model(NAME, init=False, **SMALL)
        torch.manual_seed(0)
        twin = timm.create_model("vit_tiny_patch16_224", **SMALL)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
        assert not any(view.skips for view in block_views(model))

    @pytest.mark.parametrize("init", [True, 0, "vit_base", 1.5])
    @pytest.mark.usefixtures("unchecked")
    def test_other_values_are_refused(self, init: object) -> None:
        with pytest.raises(InputError, match="give a SkiplessInit, its fields as a dict, 'ours', or False"):
            timm.create_model(NAME, init=init, **SMALL)

    def test_fields_that_the_scheme_lacks_are_refused(self) -> None:
        with pytest.raises(InputError, match="SkiplessInit has no 'gamma'; it has alpha, beta, c"):
            timm.create_model(NAME, init={"alpha": 1.0, "gamma": 2.0}, **SMALL)
