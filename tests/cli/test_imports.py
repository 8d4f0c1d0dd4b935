"""What is imported when: help needs no torch, `import skipless` neither, and timm meets our models all the same."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "timm", "torchvision", "transformers", "lightning_fabric", "matplotlib", "sklearn", "PIL", "scipy")


def imported(code: str) -> list[str]:
    """Which of the heavy modules a fresh process has after it."""
    told = f"{code}\nimport sys; print('heavy:', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()[1:]


def test_no_help_text_needs_torch() -> None:
    """Every command in one process: what one has imported, the next finds there."""
    code = f"""
import contextlib, io, sys
sys.path[:0] = {sys.path!r}
from skipless.cli import main
from reference.command import every_command
verbs = [[verb] for verb in ("train", "reproduce", "eval", "data")]
for command in [[], ["--version"], *verbs, *every_command()]:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            main([*command, "--help"] if command != ["--version"] else command)
        except SystemExit as error:
            assert not error.code, command
    assert len(printed.getvalue()) > 10, command
    heavy = [m for m in {HEAVY!r} if m in sys.modules]
    assert not heavy, (command, heavy)
"""
    assert imported(code) == []


def test_the_top_of_the_command_line_needs_next_to_nothing() -> None:
    code = """
import contextlib, io, sys
before = len(sys.modules)
from skipless.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    main(["--help"])
assert "tyro" not in sys.modules and "numpy" not in sys.modules
assert len(sys.modules) - before < 120, len(sys.modules) - before
"""
    assert imported(code) == []


def test_skipless_is_imported_lazily_and_whole() -> None:
    assert imported("import skipless; dir(skipless); skipless.InputError") == []
    assert imported("import skipless; skipless.recipes.table1('fashion').as_json()") == []
    code = "import skipless; skipless.conditioning.spectrum; skipless.optim.soap; skipless.SOAP"
    assert "torch" in imported(code)


TWINS = """
assert timm.is_model("skipless_vit_tiny_patch16_224")
model = timm.create_model("skipless_vit_tiny_patch16_224", depth=1, img_size=32, embed_dim=12)
assert type(model.blocks[0]).__name__ == "SkiplessBlock"
import importlib
assert not type(importlib.reload(timm).__loader__).__name__.startswith("_")
"""
SOAP = """
import sys, torch
assert "skipless.optim.soap.optimizer" not in sys.modules
weight = torch.nn.Parameter(torch.eye(3))
optimizer = timm.optim.create_optimizer_v2([weight], "soap", lr=0.1)
import skipless
assert type(optimizer) is skipless.SOAP
assert not type(sys.modules["timm.optim._optim_factory"].__loader__).__name__.startswith("_")
waiting = [finder.name for finder in sys.meta_path if "PostImport" in type(finder).__name__]
assert not any(name.startswith("timm") for name in waiting), waiting
"""
APART = {
    "an optimizer of that name stays": """
import timm.optim, torch
from timm.optim._optim_factory import default_registry
default_registry.register(timm.optim.OptimInfo(name="soap", opt_class=torch.optim.SGD))
import skipless
assert timm.optim.get_optimizer_class("soap") is torch.optim.SGD
""",
    "a star import and the version": """
from skipless import *
assert SOAP.__name__ == "SOAP" and callable(param_groups) and callable(spectrum)
import skipless
from importlib.metadata import version
assert skipless.__version__ == version("skipless")
try:
    skipless.nothing
except AttributeError as error:
    assert str(error) == "module 'skipless' has no attribute 'nothing'"
else:
    raise AssertionError
""",
    "who only looks for timm gets its spec, and the hook waits": """
import importlib.util, sys, skipless
for _ in range(2):
    spec = importlib.util.find_spec("timm")
    assert spec.loader.get_filename("timm") == spec.origin
import timm
assert "timm.optim" not in sys.modules  # nor does it import timm's optimizers for us
assert timm.is_model("skipless_vit_tiny_patch16_224")
assert timm.__spec__.loader is timm.__loader__
assert type(timm.__loader__).__name__ == "SourceFileLoader"
assert "skipless.models.libraries.timm_factory" not in sys.modules  # the hook runs under timm's import lock
""",
    **{
        f"timm has both: {imports}": f"{imports}\n{SOAP}{TWINS}"
        for imports in (
            "import skipless, timm; from timm.optim import create_optimizer_v2; import timm.optim",
            "import skipless; from timm.models import create_model; import timm, timm.optim",
            "import timm, skipless, timm.optim",
            "import skipless, timm.optim",
            "import timm.optim, skipless",
        )
    },
}

# Forks of one process that has imported what timm needs, and neither timm nor skipless: each goes on from there.
FORKS = """
import json, os, sys, tempfile, traceback
import torch._dynamo, torchvision, huggingface_hub, safetensors.torch, yaml, PIL.Image
assert "timm" not in sys.modules and "skipless" not in sys.modules
torch.set_num_threads(1)
found = {}
for name, code in json.load(sys.stdin).items():
    with tempfile.TemporaryFile("w+") as told:
        pid = os.fork()
        if not pid:
            os.dup2(told.fileno(), 1), os.dup2(told.fileno(), 2)
            try:
                exec(compile(code, name, "exec"), {"__name__": "__main__"})
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
            sys.stdout.flush()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        told.seek(0)
        found[name] = (status, told.read())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def apart() -> dict[str, tuple[int, str]]:
    """The exit code and the output of each of `APART`, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS],
        input=json.dumps(APART), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", APART)
def test_a_process_of_its_own(name: str, apart: dict[str, tuple[int, str]]) -> None:
    code, told = apart[name]
    assert code == 0, told


@pytest.mark.slow
@pytest.mark.parametrize("imports", ["import skipless, transformers", "import transformers, skipless"])
def test_transformers_is_hooked_whoever_comes_first(imports) -> None:
    code = f"""
{imports}
import sys
from transformers import LlamaConfig, LlamaModel, PreTrainedModel
assert PreTrainedModel.post_init.skipless
sizes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=5)
model = LlamaModel(LlamaConfig(**sizes, skipless=dict(sub_blocks=["attn", "mlp"], layer_scale="remove")))
assert type(model.layers[0]).__name__ == "SkiplessLlamaDecoderLayer"
assert not any("PostImport" in type(f).__name__ and f.name.startswith("transformers") for f in sys.meta_path)
"""
    assert "transformers" in imported(code)


def test_pages_are_made_without_torch() -> None:
    """A report knows run folders, not training: its pages can be made years after the run."""
    modules = ("pages.measurement_page", "pages.write_page", "pages.markdown", "runs_index.write")
    code = "".join(f"import skipless.report.{name}\n" for name in modules)
    assert imported(code + "import sys; assert 'skipless.training.loop' not in sys.modules") == []
