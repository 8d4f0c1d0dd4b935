"""SOAP's state sharded over 4, 2 and 1 processes, which `ranks.py` runs once for all these tests."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from optim.ranks import CAST, CUT, HYPER, STEPS, WORLDS, draw, groups, kept, train
from torch import Tensor
from torch.nn import Parameter

import skipless
from skipless.errors import InputError
from skipless.optim import SOAP, gathered_state, load_gathered_state_
from skipless.optim.soap.collectives import shard_shapes
from skipless.optim.soap.layout import Layout
from skipless.optim.soap.state_sharding import assign_greedily, step_macs

SEVERAL = [world for world in WORLDS if world > 1]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
SCRIPT = Path(__file__).with_name("ranks.py")

Found = dict[tuple[int, int], dict[str, Any]]


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What every rank of every world has left."""
    folder = tmp_path_factory.mktemp("ranks")
    # The library of these tests, which need not be the installed one.
    paths = os.pathsep.join(map(str, (SCRIPT.parents[1], Path(skipless.__file__).parents[1])))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, folder], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {
        (world, rank): torch.load(folder / f"{world}-{rank}.pt", weights_only=False)
        for world in WORLDS
        for rank in range(world)
    }


def alone(dtype: torch.dtype) -> tuple[list[Parameter], dict[str, Any]]:
    """What one process computes that knows of no others."""
    params = draw(dtype)
    optimizer = SOAP(groups(params), **HYPER)
    train(optimizer, params, range(STEPS))
    return params, gathered_state(optimizer) or {}


def same(left: Any, right: Any) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def distance(left: list[Tensor], right: list[Tensor]) -> float:
    return max((a.reshape(b.shape) - b).abs().max().item() for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("world", SEVERAL)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_result_is_one_processs_and_bitwise_the_same_on_all_ranks(found: Found, world: int, dtype) -> None:
    params, state = alone(dtype)
    first = found[world, 0]["shared"][str(dtype)]
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype]
    assert distance(first["params"], [param.detach() for param in params]) < tolerance
    assert distance(kept(first["state"]), kept(state)) < max(tolerance, 1e-5 * (dtype != torch.float64))
    assert all(same(first["params"], found[world, rank]["shared"][str(dtype)]["params"]) for rank in range(world))
    assert first["state"]["param_groups"] == state["param_groups"]
    assert [found[world, rank]["shared"][str(dtype)]["state"] for rank in range(1, world)] == [None] * (world - 1)


@pytest.mark.parametrize("world", SEVERAL)
def test_every_entry_of_the_state_is_kept_once(found: Found, world: int) -> None:
    shares = [found[world, rank]["shared"]["torch.float64"]["own"] for rank in range(world)]
    assert sum(shares) == sum(map(torch.numel, kept(alone(torch.float64)[1]["state"])))
    assert max(shares) < 1.6 * sum(shares) / world  # of eight small parameters; ViT-S's are in benchmarks/


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_run_goes_from_four_ranks_to_two_and_to_one(found: Found, dtype) -> None:
    """The state is handed on bit for bit, and the end is that of an undisturbed run."""
    for world in (2, 1):
        seen = found[world, 0]["shared"][str(dtype)]
        assert same(kept(seen["given"]), kept(seen["loaded"]))
        assert seen["given"]["state"].keys() == seen["loaded"]["state"].keys()
    resumed = found[1, 0]["shared"][str(dtype)]["resumed"]
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype]
    assert distance(resumed, [param.detach() for param in alone(dtype)[0]]) < tolerance


@pytest.mark.parametrize("world", SEVERAL)
def test_one_ranks_part_is_not_taken_for_the_whole(found: Found, world: int) -> None:
    for rank in range(world):
        seen = found[world, rank]["shared"]["torch.float64"]
        assert "call gathered_state(optimizer) on all of them" in seen["partial"]
        assert "is kept by another process" in seen["old partial"]


@pytest.mark.parametrize(
    ("world", "mesh", "dtype"),
    [(4, "all", torch.float64), (4, "half", torch.float64), (2, "all", torch.bfloat16)],
)
def test_dtensors_go_where_plain_tensors_go(found: Found, world: int, mesh: str, dtype) -> None:
    """With a checkpoint, saved and loaded, half way."""
    params, state = alone(dtype)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-2
    for rank in range(world):
        seen = found[world, rank]["cut"][str(dtype)][mesh]
        assert distance(seen["params"], [param.detach() for param in params]) < tolerance
        assert (seen["state"] is None) == (rank > 0)
    whole = found[world, 0]["cut"][str(dtype)][mesh]["state"]
    assert distance(kept(whole["state"]), kept(state["state"])) < tolerance


def test_adamws_shards_are_saved_whole_and_cut_anew(found: Found) -> None:
    given, loaded = found[2, 0]["cut"]["torch.bfloat16"]["adamw"]
    assert [tuple(tensor.shape) for tensor in kept(given)] == [(), (12, 4), (12, 4), (), (3, 2, 3, 3), (3, 2, 3, 3)]
    assert same(kept(given), kept(loaded))
    assert found[2, 1]["cut"]["torch.bfloat16"]["adamw"][1] is None


@pytest.mark.parametrize("world", SEVERAL)
@pytest.mark.parametrize("wrap", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [
        ("adamw", torch.float64, 1e-12),
        ("adamw", torch.float32, 1e-5),
        ("soap", torch.float64, 1e-8),
        ("soap", torch.float32, 1e-5),
        ("muon", torch.float64, 1e-12),
        ("muon", torch.float32, 1e-5),
    ],
)
def test_a_global_batch_gives_the_losses_of_one_process(found: Found, world, wrap, kind, dtype, tolerance) -> None:
    expected, _ = found[1, 0]["curves"][f"{kind} ddp {dtype}"]
    for rank in range(world):
        losses, weights = found[world, rank]["curves"][f"{kind} {wrap} {dtype}"]
        assert losses == pytest.approx(expected, abs=tolerance)
        assert same(weights, found[world, 0]["curves"][f"{kind} {wrap} {dtype}"][1])
    assert expected[-1] < expected[0]


@pytest.mark.parametrize("world", SEVERAL)
def test_ranks_without_a_parameter_serve_and_the_owner_warns(found: Found, world: int) -> None:
    seen = [found[world, rank]["few"] for rank in range(world)]
    assert [few["kept"] for few in seen] == [6] + [0] * (world - 1)
    assert [few["later"] for few in seen] == [6, 6] + [0] * (world - 2)
    assert ["not finite" in " ".join(few["told"]) for few in seen] == [True] + [False] * (world - 1)
    assert all(same(few["params"], seen[0]["params"]) for few in seen)
    assert not torch.equal(seen[0]["params"][1], torch.eye(4))
    assert all(few["stopped"] == [True, True] for few in seen)


@pytest.mark.parametrize("world", WORLDS)
def test_torchs_api_saves_the_whole_or_is_refused_on_every_rank(found: Found, world: int) -> None:
    expected = "call gathered_state(optimizer) on all of them" if world > 1 else "nothing was refused"
    for rank in range(world):
        told = found[world, rank]["by torch"]
        assert len(told) == 8
        for name, message in told.items():  # torch has Muon's and AdamW's state whole, or as DTensors
            assert ("nothing was refused" if "muon" in name else expected) in message


@pytest.mark.parametrize("world", SEVERAL)
def test_what_does_not_fit_together_is_refused_on_every_rank(found: Found, world: int) -> None:
    for rank in range(world):
        told = found[world, rank]["refused"]
        assert "ranks 0 and 1 hold different parameters" in told["uneven"]
        assert "(Replicate(),)" in told["replicated"]
        assert world < 4 or "(Shard(dim=0), Shard(dim=1))" in told["two cuts"]


def test_alone_sharing_changes_nothing() -> None:
    expected, state = alone(torch.float32)
    params = draw(torch.float32)
    optimizer = SOAP(groups(params), share=True, **HYPER)
    train(optimizer, params, range(STEPS))
    assert same(params, expected)
    assert same(kept(optimizer.full_state_dict()), kept(state))
    assert pickle.loads(pickle.dumps(optimizer)).share
    assert copy.deepcopy(optimizer).share


def test_a_gathered_state_is_a_copy() -> None:
    for kind in (SOAP, torch.optim.AdamW):
        param = Parameter(torch.eye(3))
        optimizer = kind([param], lr=0.1)
        for _ in range(2):
            param.grad = torch.eye(3)
            optimizer.step()
        state = gathered_state(optimizer) or {}
        before = copy.deepcopy(state)
        load_gathered_state_(optimizer, state)
        optimizer.step()
        assert same(kept(state), kept(before))


def test_states_of_other_models_are_refused() -> None:
    for kind in (SOAP, torch.optim.AdamW):
        state = gathered_state(kind([Parameter(torch.ones(2, 2)), Parameter(torch.ones(2))])) or {}
        with pytest.raises(InputError, match="load the checkpoint of this model|another model"):
            load_gathered_state_(kind([Parameter(torch.ones(2, 2))]), state)


@given(works=st.lists(st.floats(0, 1e6), max_size=30), ranks=st.integers(1, 8))
def test_no_rank_has_more_than_its_part_and_one_piece(works: list[float], ranks: int) -> None:
    owners = assign_greedily(works, [0.0] * ranks)
    loads = [sum(w for w, owner in zip(works, owners, strict=True) if owner == rank) for rank in range(ranks)]
    assert max(loads) <= sum(works) / ranks + max(works, default=0.0) + 1e-6
    assert owners == assign_greedily(works, [0.0] * ranks)


@given(rows=st.integers(0, 40), ranks=st.integers(1, 9))
def test_shards_are_those_of_torch(rows: int, ranks: int) -> None:
    whole = torch.zeros(rows, 3)
    expected = [tuple(part.shape) for part in whole.chunk(ranks)] if rows else []
    expected += [(0, 3)] * (ranks - len(expected))
    assert [tuple(shape) for shape in shard_shapes(whole.shape, 0, ranks)] == expected


def test_work_grows_with_the_cube_of_the_sides_and_falls_with_the_frequency() -> None:
    def cost(shape: tuple[int, ...], frequency: int = 1, **changes: Any) -> float:
        group = SOAP([Parameter(torch.ones(1))], **changes).param_groups[0]
        return step_macs(Layout.of(torch.empty(shape), group), frequency)

    assert cost((64, 64)) / cost((32, 32)) == pytest.approx(8, rel=0.05)
    assert cost((64, 64), 1000) < cost((64, 64))
    assert cost((96, 32), split=3) == 3 * cost((32, 32))
    assert cost((64, 32), max_precond_dim=32) < cost((64, 32))
    assert cost((64,)) == 64


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("cast", CAST)
def test_what_is_gathered_just_after_a_cast_goes_on_as_the_run_does(found: Found, world: int, cast: tuple) -> None:
    seen = found[world, 0]["cast late"][cast]
    params = [Parameter(value.clone()) for value in seen["at"]]
    assert [param.dtype == torch.float64 for param in params] == [index in cast for index in range(len(params))]
    optimizer = load_gathered_state_(SOAP(groups(params), **HYPER), seen["saved"])
    train(optimizer, params, range(CUT, STEPS))
    for index, (param, expected) in enumerate(zip(params, seen["end"], strict=True)):
        assert param.dtype == expected.dtype
        torch.testing.assert_close(param.detach(), expected, **({"rtol": 1e-9, "atol": 1e-9} if index in cast else {}))
    assert all(found[world, rank]["cast late"][cast]["saved"] is None for rank in range(1, world))
