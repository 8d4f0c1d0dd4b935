import dataclasses
import subprocess
import sys

import pytest
import torch

from skipless.errors import InputError
from skipless.init import PRESETS, SkiplessInit


def test_presets_are_the_papers() -> None:
    values = {name: (init.alpha, init.beta, init.c) for name, init in PRESETS.items()}
    assert values["vit_base"] == (2.0, 0.6, 3.0)
    assert values["dino_vit_small"] == (1.8, 1.0, 3.0)
    assert values["language"][:2] == (0.0, 0.5)
    assert SkiplessInit.preset("vit_base") == SkiplessInit()
    with pytest.raises(InputError, match=r"no preset 'vit_huge'; did you mean vit_base\? the paper's are 'vit_base'"):
        SkiplessInit.preset("vit_huge")


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SkiplessInit().alpha = 1.0


def test_compensated_logits_are_those_of_the_formula() -> None:
    """softmax(Q K^T) in the paper, softmax(Q K^T / sqrt(d_h)) in every library."""
    kept, compensated = (
        SkiplessInit(logit_scale=choice).query_key(16, 2, 8, 2, torch.Generator().manual_seed(0))
        for choice in ("kept", "compensated")
    )
    torch.testing.assert_close(compensated[0], kept[0] * 8**0.5)
    torch.testing.assert_close(compensated[1], kept[1])


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"c": 0.0}, "c=0.0 must be a positive number"),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"alpha": 0.0, "beta": 0.0}, "not both 0"),
        ({"factors": "partition"}, "needs alpha=0"),
        ({"mlp": "suo"}, "mlp='suo' is not one of 'orthogonal', 'mirrored', 'kept'"),
        ({"logit_scale": ""}, "logit_scale=''"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_values_are_quoted(kwargs: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        SkiplessInit(**kwargs)


def test_init_needs_torch_alone() -> None:
    """Its modules load with every other third-party package of ours made unimportable."""
    code = (
        "import sys, types\n"
        "for name in ('timm', 'torchvision', 'lightning_fabric', 'tyro', 'rich', 'sklearn', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "from pathlib import Path; import importlib.util\n"
        "root = Path(importlib.util.find_spec('skipless').origin).parent\n"
        "package = types.ModuleType('skipless'); package.__path__ = [str(root)]; sys.modules['skipless'] = package\n"
        "from skipless.init import SkiplessInit; print(SkiplessInit().query_key(8, 2, 4, 2)[0].shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "torch.Size([8, 8])", done.stderr
