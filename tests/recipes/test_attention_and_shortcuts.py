"""A run's attention and shortcuts: said in its recipe, and built again wherever its model is built again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from reference.command import skipless as command
from reference.tiny_images import images
from reference.tiny_language import tiny_recipe, write_lines
from reference.tiny_scale import tiny
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

import skipless
from skipless.errors import InputError
from skipless.init.scheme import SkiplessInit
from skipless.models import AttentionConfig, block_views, create_model, initialize_
from skipless.models.attention_config import RHO, rising_cosines
from skipless.planning import forward_flops
from skipless.planning.activations import Keeping
from skipless.planning.work import workload
from skipless.recipes import Recipe, open_model, read_recipe, table1
from skipless.recipes.export import export_backbone, note_of, open_file
from skipless.recipes.model import ModelConfig
from skipless.training import load_weights, save_weights

SIZES = {"patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2}
CORES = {
    "polynomial": AttentionConfig("polynomial", power=2),
    "fixed": AttentionConfig("polynomial", power=3, scale=0.25),
    "learned": AttentionConfig("polynomial", power=3, scale="learned"),
    "solved": AttentionConfig("polynomial", power=3, scale="solved"),
    "shaped": AttentionConfig("shaped"),
    "v-skipinit": AttentionConfig("v-skipinit"),
    "e-spa": AttentionConfig("e-spa", gamma=0.05),
    "u-spa": AttentionConfig("u-spa", rho=0.5),
    "orthogonal": AttentionConfig("orthogonal", alpha=0.5),
}
DECAYED = "decayed"
NAMES = (*CORES, DECAYED)


def recipe_of(name: str) -> Recipe:
    """Digits in one epoch, by two blocks: without skips and with the paper's scheme, or with decayed skips."""
    base = table1("digits", "skip" if name == DECAYED else "skipless + init", "adamw")
    model = replace(base.model, kwargs=SIZES)
    model = replace(model, skip_gain=0.6) if name == DECAYED else replace(model, attention=CORES[name])
    return base.with_(model=model, fit__epochs=1, fit__batch_size=512, fit__progress="none")


def core_of(model: Any) -> Any:
    """What its first block has for the softmax, with its options, and its skips."""
    view = block_views(model)[0]
    core = None if view.core is None else (type(view.core).__name__, view.core.options())
    return core, view.skips, view.skip_gains


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("cores")
    for name in NAMES:
        recipe_of(name).run(root / name)
    return {name: root / name for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_says_it_and_is_read_back(runs: dict[str, Path], name: str) -> None:
    said = json.loads((runs[name] / "run.json").read_text())["recipe"]["model"]
    if name == DECAYED:
        assert (said["skip_gain"], "attention" in said) == (0.6, False)
    else:
        given = {key: value for key, value in vars(CORES[name]).items() if value is not None}
        assert (said["attention"], "skip_gain" in said) == (given, False)
    assert read_recipe(runs[name]) == recipe_of(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_opens_resumes_and_is_exported_with_it(runs: dict[str, Path], name: str, tmp_path: Path) -> None:
    run, pixels = runs[name], torch.randn(3, 1, 8, 8)
    trained, first = open_model(str(run)).model, open_model(str(run), untrained=True).model
    fresh = recipe_of(name).model.build_for(8, 1, 10, seed=0).eval()
    assert core_of(trained) == core_of(first) == core_of(fresh)
    assert torch.equal(first(pixels), fresh(pixels))
    assert not torch.equal(trained(pixels), first(pixels))
    stamp = (run / "checkpoint.safetensors").stat().st_mtime_ns
    recipe_of(name).run(run)
    assert (run / "checkpoint.safetensors").stat().st_mtime_ns == stamp
    exported = export_backbone(run, tmp_path / "w.safetensors")
    found: dict[str, Any] = {}
    exec(exported.python, found)
    loaded, again = found["model"].eval(), open_file(exported.file).model
    assert core_of(loaded) == core_of(again) == core_of(trained)
    expected = trained.forward_features(pixels)
    assert torch.equal(loaded.forward_features(pixels), expected)
    assert torch.equal(again.forward_features(pixels), expected)
    assert torch.equal(open_model(str(run), weights=exported.file).model.forward_features(pixels), expected)


@pytest.mark.parametrize("name", NAMES)
def test_weights_go_into_no_model_with_other_attention_or_skips(
    runs: dict[str, Path], name: str, tmp_path: Path
) -> None:
    """Many cores have no weights, so that names and shapes fit any other model's."""
    file = export_backbone(runs[name], tmp_path / "w.safetensors").file
    sizes = {**SIZES, "img_size": 8, "in_chans": 1, "num_classes": 0}
    plain = create_model("vit_tiny_patch16_224", skip=name == DECAYED, seed=0, **sizes)
    with pytest.raises(InputError, match="set_skip_gains_" if name == DECAYED else "replace_attention_ or restore"):
        load_weights(plain, file)
    with pytest.raises(InputError, match=r"set_skip_gains_|replace_attention_"):
        load_weights(plain, runs[name])
    other = "shaped" if name != "shaped" else "v-skipinit"
    for source in {other, DECAYED} - {name}:
        with pytest.raises(InputError, match=r"holds weights of"):
            open_model(str(runs[source]), weights=file)
    bare = save_weights(plain, tmp_path / "plain.safetensors", note=note_of("vit_tiny_patch16_224", sizes))
    if name == DECAYED:
        with pytest.raises(InputError, match="with skip_gain=1, not 0.6"):
            open_model(str(runs[name]), weights=bare)


def test_the_command_line_trains_evaluates_and_exports_it(capsys: Any, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    words = ("--attention", "polynomial", "--attention-power", "2", "--attention-scale", "solved")
    quick = ("--epochs", "1", "--batch-size", "512", "--progress", "none", "--device", "cpu")
    assert command(capsys, "train", "table1", *words, *quick, "--out", out)[0] == 0
    said = json.loads((tmp_path / "run/run.json").read_text())["recipe"]["model"]["attention"]
    assert said == {"core": "polynomial", "power": 2, "scale": "solved"}
    assert "top1" in command(capsys, "eval", out)[1]
    code, printed, _ = command(capsys, "export", out, "--out", str(tmp_path / "w.safetensors"))
    assert (code, "PolynomialAttention(power=2, scale='solved')" in printed) == (0, True)
    decayed = str(tmp_path / "decayed")
    assert command(capsys, "train", "table1", "--skip", "--skip-gain", "0.65", *quick, "--out", decayed)[0] == 0
    assert "top1" in command(capsys, "eval", decayed)[1]
    assert block_views(open_model(decayed).model)[-1].skip_gains == pytest.approx((0.65, 0.65))
    code, _, told = command(capsys, "train", "table1", *quick, "--attention-scale", "0.5", "--out", str(tmp_path / "x"))
    assert (code, told) == (
        2,
        "skipless: attention_scale 0.5 is of polynomial attention, not of softmax: leave it out\n",
    )
    code, _, told = command(capsys, "train", "table1", *quick, "--skip-gain", "0.5", "--out", str(tmp_path / "x"))
    assert (code, "skip_gain 0.5 is of models with skips, and this one has none: give --skip" in told) == (2, True)


def test_a_folder_resumes_only_with_the_same_attention(runs: dict[str, Path]) -> None:
    other = recipe_of("shaped").with_(model__attention=AttentionConfig("v-skipinit"))
    with pytest.raises(InputError, match="attention"):
        other.run(runs["shaped"])


@pytest.mark.parametrize("name", ["solved", "u-spa", "orthogonal", DECAYED])
def test_dino_keeps_it_and_so_do_its_teachers(name: str, tmp_path: Path) -> None:
    """Teachers that are kept are files of weights on their own."""
    base = tiny(
        "scenes", "skip" if name == DECAYED else "skipless + init", data=str(images(tmp_path / "images")), depth=2
    )
    more = {"skip_gain": 0.6} if name == DECAYED else {"attention": CORES[name]}
    recipe = base.with_(model=replace(base.model, **more))
    if name == "u-spa":  # of one number of tokens, and crops have several
        with pytest.raises(InputError, match=r"takes images of any size|was made for 17 tokens"):
            recipe.run(tmp_path / "run")
        return
    recipe.run(tmp_path / "run")
    source = open_model(str(tmp_path / "run"))
    kept = tmp_path / "run/teacher-epoch-1.safetensors"
    kept = next((tmp_path / "run").rglob("teacher-epoch-*1.safetensors"), kept)
    pixels = torch.randn(1, 3, 32, 32)
    first = open_file(kept).model
    assert core_of(first) == core_of(source.model)
    again = open_model(str(tmp_path / "run"), weights=kept).model
    assert torch.equal(again.forward_features(pixels), first.forward_features(pixels))
    assert core_of(open_file(export_backbone(tmp_path / "run", tmp_path / "w.safetensors").file).model) == core_of(
        first
    )


def test_a_solved_scale_is_a_function_of_the_seed_and_needs_an_initialisation() -> None:
    model = recipe_of("solved").model
    gains = [block_views(model.build_for(8, 1, 10, seed=seed))[0].core.gain for seed in (0, 0, 1)]
    assert torch.equal(gains[0], gains[1])
    assert not torch.equal(gains[0], gains[2])
    assert gains[0].isfinite().all()
    blank = model.build_for(8, 1, 10, seed=0, blank=True)
    assert block_views(blank)[0].core.gain.isnan().all()
    with pytest.raises(InputError, match="no scale makes the mean diagonal 1"):
        replace(model, init=None).build_for(8, 1, 10, seed=0)


def test_queries_start_at_zero_where_their_source_has_it() -> None:
    for name, zero in (("shaped", True), ("e-spa", True), ("u-spa", True), ("v-skipinit", False), ("learned", False)):
        model = recipe_of(name).model
        view = block_views(model.build_for(8, 1, 10, seed=0))[1]
        assert bool(view.w_q.any()) != zero
        assert view.w_k.any()
        kept = replace(model, attention=replace(model.attention, queries="kept")).build_for(8, 1, 10, seed=0)
        assert block_views(kept)[1].w_q.any()
        start = replace(model, attention=replace(model.attention, queries="zero")).build_for(8, 1, 10, seed=0)
        assert not block_views(start)[1].w_q.any()


def test_another_attention_leaves_the_other_weights_as_they_were() -> None:
    """Cores are compared at the same weights, and models with the softmax are those of before."""
    plain = replace(recipe_of("learned").model, attention=AttentionConfig()).build_for(8, 1, 10, seed=0).state_dict()
    for name in CORES:
        found = recipe_of(name).model.build_for(8, 1, 10, seed=0).state_dict()
        for key, value in plain.items():
            assert torch.equal(found[key], value) or ("qkv" in key and name in ("shaped", "e-spa", "u-spa"))


def test_decayed_skips_start_their_branches_at_zero_from_07_on() -> None:
    for gain, zero in ((0.6, True), (0.7, True), (0.75, False)):
        views = block_views(replace(recipe_of(DECAYED).model, skip_gain=gain).build_for(8, 1, 10, seed=0))
        assert [view.gain("attn") for view in views] == pytest.approx([(1 + gain) / 2, gain])
        assert all(bool(view.w_o.any()) != zero and bool(view.mlp_out.w.any()) != zero for view in views)


def test_a_language_model_is_opened_and_saved_with_it(tmp_path: Path) -> None:
    text = write_lines(tmp_path)
    sizes = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }  # fmt: skip
    for more in (
        {"attention": CORES["e-spa"]},
        {"attention": CORES["solved"], "init": SkiplessInit(0.0, 2.0)},
        {"skip_gain": 0.6, "skip": True},
    ):
        model = ModelConfig("LlamaForCausalLM", library="transformers", kwargs=sizes)
        recipe = tiny_recipe(text, model=replace(model, **more))
        out = tmp_path / "_".join(more)
        recipe.run(out)
        source = open_model(str(out))
        assert core_of(source.model) == core_of(open_model(str(out), untrained=True).model)
        exported = export_backbone(out, tmp_path / f"{out.name}-saved")
        again = skipless.models.from_pretrained(exported.file)
        assert core_of(again) == core_of(source.model)
        ids = torch.zeros(1, 8, dtype=torch.long)
        torch.testing.assert_close(again.eval()(ids).logits, source.model(ids).logits)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"core": "linear"}, "attention 'linear': there is softmax, polynomial"),
        ({"power": 2}, "attention_power 2 is of polynomial attention, not of softmax"),
        ({"core": "shaped", "rho": 0.5}, "attention_rho 0.5 is of u-spa attention, not of shaped"),
        ({"core": "polynomial", "power": 4}, "attention_power 4: give 1, 2 or 3"),
        ({"core": "polynomial", "scale": "big"}, "attention_scale 'big': give a number above 0, or one of visible"),
        ({"core": "polynomial", "scale": -1.0}, "attention_scale -1.0"),
        ({"core": "orthogonal", "alpha": float("nan")}, "attention_alpha nan: give a number"),
        ({"core": "e-spa", "gamma": 0.0}, "attention_gamma 0.0: give a number above 0"),
        ({"core": "u-spa", "rho": 1.0}, "attention_rho 1.0: give a number from 0, below 1"),
        ({"core": "shaped", "queries": "random"}, "attention_queries 'random': give one of kept, zero"),
    ],
)
def test_what_is_no_attention_is_refused(given: dict[str, Any], message: str) -> None:
    made = AttentionConfig()
    for name, value in given.items():  # past the checks of types that tests have, as an edited run.json comes
        object.__setattr__(made, name, value)
    with pytest.raises(InputError, match=message):
        made.__post_init__()
    with pytest.raises(InputError, match="no core to put in"):
        AttentionConfig().core_of(tokens=1, depth=1)


@pytest.mark.parametrize("gain", [0.0, -0.5, 1.5, float("nan")])
def test_what_is_no_gain_is_refused(gain: float) -> None:
    with pytest.raises(InputError, match="give a number above 0, up to 1"):
        ModelConfig(skip=True, skip_gain=gain)


def test_spa_is_built_for_the_models_tokens_and_order() -> None:
    model = recipe_of("u-spa").model.build_for(8, 1, 10, seed=0)
    cosines = rising_cosines(0.5, 2)
    assert core_of(model)[0] == ("UniformSPA", {"tokens": 5, "rho": list(cosines), "causal": False})
    assert (1 - cosines[0]) ** 2 == pytest.approx(1 - cosines[1])
    assert RHO == 0.8


def test_plan_counts_the_products_and_refuses_the_rest() -> None:
    plain = create_model("vit_tiny_patch16_224", depth=1)
    counted = {
        name: forward_flops(create_model("vit_tiny_patch16_224", depth=1, attention=config, blank=True), 224)
        for name, config in CORES.items()
        if name != "orthogonal"
    }
    assert set(counted.values()) == {forward_flops(plain, 224)}
    linear = create_model("vit_tiny_patch16_224", depth=1, attention=AttentionConfig("polynomial", power=1))
    with FlopCounterMode(display=False) as counter:
        linear(torch.randn(1, 3, 224, 224))
    assert counter.get_total_flops() == forward_flops(linear, 224)
    with pytest.raises(InputError, match=r"OrthogonalAttention for the softmax, whose work is not counted"):
        forward_flops(create_model("vit_tiny_patch16_224", depth=1, attention=CORES["orthogonal"]), 224)
    decayed = create_model("vit_tiny_patch16_224", skip=True, depth=1, skip_gain=0.6)
    assert forward_flops(decayed, 224) == forward_flops(plain, 224)
    paper = table1("paper", data="-")
    work = workload(paper.with_(model=replace(paper.model, attention=CORES["solved"])))
    assert work.forward == workload(paper).forward
    with pytest.raises(InputError, match="what it saves for the backward pass is not counted"):
        work.kept(Keeping())


def test_runs_of_before_are_to_the_bit() -> None:
    """Softmax and plain skips are left out of the JSON, and of notes."""
    recipe = table1("digits")
    assert not {"attention", "skip_gain"} & recipe.as_json()["model"].keys()
    assert set(json.loads(note_of("x")["skipless"])) == {"model", "kwargs", "statistics", "trained"}
    torch.manual_seed(0)
    by_hand = timm.create_model("vit_tiny_patch16_224", img_size=8, in_chans=1, num_classes=10, **SIZES)
    by_hand = initialize_(skipless.remove_skips_(by_hand), recipe.model.init).state_dict()
    built = replace(recipe.model, kwargs=SIZES).build_for(8, 1, 10, seed=0).state_dict()
    assert all(torch.equal(built[name], value) for name, value in by_hand.items())


def test_files_of_runs_have_the_weights_of_their_gains(runs: dict[str, Path]) -> None:
    kept = load_file(runs["shaped"] / "checkpoint.safetensors")
    assert kept["task/model.blocks.1.attn.core.alpha"].shape == (2,)


def test_a_page_over_runs_says_it(runs: dict[str, Path], capsys: Any) -> None:
    folder = runs["shaped"].parent
    command(capsys, "report", str(folder))
    page = (folder / "index.html").read_text()
    for words in ("polynomial, power 2 attention", "shaped attention", "skips that fall to 0.6", "rho 0.5 attention"):
        assert words in page
    assert "polynomial, power 2 attention" in recipe_of("polynomial")._summary()
    assert recipe_of(DECAYED).model.title.endswith("patch 4, skips that fall to 0.6")
