"""What several processes do for `test_state_sharding`.

`python ranks.py FOLDER` runs 4, 2 and 1 processes, once, for all tests. The interpreter that forks them has run nothing
yet; each leaves `WORLD-RANK.pt` with all that the tests look at.
"""

import multiprocessing
import os
import socket
import sys
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import jaxtyping
import torch
import torch.distributed as dist
from faults.ranks import import_what_ranks_use
from torch import Tensor, nn
from torch.nn import Parameter

WORLDS = (4, 2, 1)
STEPS, CUT = 7, 4
CAST = [tuple(range(8)), (1, 4)]
SHAPES = [(6, 6), (6, 6), (8, 5), (12, 4), (3, 2, 3, 3), (5,), (1, 4, 6), ()]
HYPER: dict[str, Any] = {"lr": 0.05, "precondition_frequency": 3, "max_precond_dim": 7}


def draw(dtype: torch.dtype = torch.float64) -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in SHAPES]


def groups(params: list[Parameter]) -> list[dict[str, Any]]:
    return [
        {"params": params[:3]},
        {"params": params[3:4], "split": 3},
        {"params": params[4:], "weight_decay": 0.0},
    ]


def gradients(now: int) -> list[Tensor | None]:
    """One gradient comes late and one pauses: what the ranks send must not depend on that."""
    generator = torch.Generator().manual_seed(100 + now)
    grads: list[Tensor | None] = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    if now < 2:
        grads[1] = None
    if now == 3:
        grads[4] = None
    return grads


def train(optimizer: Any, params: list[Parameter], steps: range) -> None:
    for now in steps:
        for param, grad in zip(params, gradients(now), strict=True):
            param.grad = None if grad is None else placed(grad.to(param.dtype), param)
        optimizer.step()


def placed(tensor: Tensor, param: Any) -> Tensor:
    """Shard a tensor as a parameter is sharded."""
    if not hasattr(param, "device_mesh"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.view(param.shape), param.device_mesh, param.placements, src_data_rank=None)


def shard(params: list[Parameter], mesh: Any, placements: list[Any]) -> list[Parameter]:
    """Shard parameters as `fully_shard` does; it demands that a scalar becomes a vector."""
    from torch.distributed.tensor import distribute_tensor

    whole = [param.detach().reshape(param.shape or (1,)) for param in params]
    return [Parameter(distribute_tensor(param, mesh, placements, src_data_rank=None)) for param in whole]


def whole(params: list[Any]) -> list[Tensor]:
    return [(p.full_tensor() if hasattr(p, "device_mesh") else p).detach().clone() for p in params]


def kept(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [tensor for item in items for tensor in kept(item)]


def message(call: Any) -> str:
    """The message of the `InputError` that a call raises."""
    from skipless.errors import InputError

    try:
        call()
    except InputError as error:
        return str(error)
    return "nothing was refused"


class Tiny(nn.Module):
    """A conv, a fused weight, a norm and a head: what `fully_shard` cuts unevenly."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 5, 2, stride=2)  # full rank: where a gradient vanishes, Adam follows its rounding
        self.blocks = nn.ModuleList([nn.ModuleDict({"qkv": nn.Linear(5, 15)})])
        self.norm = nn.LayerNorm(15)
        self.head = nn.Linear(15, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        return self.head(self.norm(torch.tanh(self.blocks[0]["qkv"](x))).mean(1))


def descend(kind: str, wrap: str, dtype: torch.dtype, steps: int = 12) -> tuple[list[float], list[Tensor]]:
    """Train `Tiny` on this rank's part of a fixed global batch; the mean loss of every step, and the weights."""
    from skipless.optim import OptimizerConfig, build_optimizer

    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model: Any = Tiny().to(dtype)
    inner = model
    if wrap == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        fully_shard(model, mesh=init_device_mesh("cpu", (ranks,)))
    elif wrap == "ddp" and ranks > 1:
        model = nn.parallel.DistributedDataParallel(model)
    name: Any = kind
    optimizer = build_optimizer(inner, OptimizerConfig(name, lr=0.02, precondition_frequency=2))
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        x = torch.randn(8, 1, 4, 4, generator=generator).to(dtype)
        y = torch.randint(3, (8,), generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x.chunk(ranks)[rank]), y.chunk(ranks)[rank])
        loss.backward()
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        losses.append(mean.item() / ranks)
    return losses, whole(list(inner.parameters()))


def shared(folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Plain parameters with sharded state; also a state that the run on 4 ranks saves for those on 2 and on 1."""
    from skipless.optim import SOAP, gathered_state, load_gathered_state_

    params = draw(dtype)
    optimizer = SOAP(groups(params), share=True, **HYPER)
    train(optimizer, params, range(STEPS))
    state = gathered_state(optimizer)
    found = {"params": whole(params), "state": state, "own": sum(map(torch.numel, kept(dict(optimizer.state))))}
    if dist.get_world_size() > 1:
        found["partial"] = message(optimizer.state_dict)
        part = {**(state or SOAP(groups(draw(dtype)), **HYPER).state_dict()), "state": {0: {"step": 3}}}
        found["old partial"] = message(lambda: SOAP(groups(draw(dtype)), **HYPER).load_state_dict(part))
    # A run that goes from 4 ranks to 2 and to 1, a few steps on each.
    handed = folder / f"handed-{dtype}.pt"
    params = draw(dtype)
    optimizer = SOAP(groups(params), share=True, **HYPER)
    at = 0
    if handed.exists():
        at, values, given = torch.load(handed, weights_only=True)
        for param, value in zip(params, values, strict=True):
            param.data.copy_(value)
        load_gathered_state_(optimizer, given)
        found["loaded"] = gathered_state(optimizer)
        found["given"] = given
    end = STEPS if dist.get_world_size() == 1 else at + 2
    train(optimizer, params, range(at, end))
    state = gathered_state(optimizer)
    dist.barrier()
    if state is not None:
        torch.save([end, whole(params), state], handed)
    dist.barrier()
    return found | {"resumed": whole(params)}


def cut_up(folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """DTensors, over all ranks and over two of four."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard

    from skipless.optim import SOAP, gathered_state, load_gathered_state_

    ranks = dist.get_world_size()
    meshes: dict[str, tuple[Any, list[Any]]] = {"all": (init_device_mesh("cpu", (ranks,)), [Shard(0)])}
    if ranks == 4:
        meshes["half"] = (init_device_mesh("cpu", (2, 2)), [Replicate(), Shard(0)])
    found: dict[str, Any] = {}
    for name, (mesh, placements) in meshes.items():
        params = shard(draw(dtype), mesh, placements)
        optimizer = SOAP(groups(params), **HYPER)
        train(optimizer, params, range(CUT))
        state = gathered_state(optimizer)
        carried = [state]
        dist.broadcast_object_list(carried)
        again = SOAP(groups(params), **HYPER)
        load_gathered_state_(again, carried[0] or {})
        train(again, params, range(CUT, STEPS))
        final = gathered_state(again)
        found[name] = {"params": whole(params), "state": final}
    adamw_file = folder / "adamw.pt"
    params = shard(draw()[3:5], *meshes["all"])
    adamw = torch.optim.AdamW(params, lr=0.05, fused=True)
    if adamw_file.exists():
        given = torch.load(adamw_file, weights_only=True)
        load_gathered_state_(adamw, given)
        found["adamw"] = (given, gathered_state(adamw))
    else:
        for param in params:
            param.grad = param.detach().clone()
        adamw.step()
        if (state := gathered_state(adamw)) is not None:
            torch.save(state, adamw_file)
    dist.barrier()
    return found


def refused() -> dict[str, str]:
    """The errors for ranks with different parameters, and for placements that SOAP does not take."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard

    from skipless.optim import SOAP

    def step(optimizer: Any) -> None:
        for group in optimizer.param_groups:
            for param in group["params"]:
                param.grad = torch.ones_like(param)
        optimizer.step()

    rank, ranks = dist.get_rank(), dist.get_world_size()
    mesh = init_device_mesh("cpu", (ranks,))
    told = {"replicated": message(lambda: step(SOAP(shard(draw(), mesh, [Replicate()]))))}
    if ranks > 1:
        uneven = SOAP([Parameter(torch.ones(3, 3 + (rank == 1)))], share=True)
        told["uneven"] = message(lambda: step(uneven))
    if ranks == 4:
        square = init_device_mesh("cpu", (2, 2))
        told["two cuts"] = message(lambda: step(SOAP(shard(draw()[:1], square, [Shard(0), Shard(1)]))))
    return told


def saved_by_torch() -> dict[str, str]:
    """What `get_optimizer_state_dict` says, of FSDP2's shards and of a state shared over equal processes."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from skipless.optim import SOAP, MuonWithAdamW, param_groups

    told = {}
    for share in (False, True):
        model = Tiny()
        if not share:
            fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
        optimizer = SOAP(model.parameters(), share=share)
        for name in ("full_state_dict", "flatten_optimizer_state_dict"):
            options = StateDictOptions(**{name: True})
            told[f"{name} {share}"] = message(partial(get_optimizer_state_dict, model, optimizer, options=options))
            muon = MuonWithAdamW(param_groups(model, weight_decay=0.1, use_muon=True))
            told[f"{name} {share} muon"] = message(partial(get_optimizer_state_dict, model, muon, options=options))
    return told


def few() -> dict[str, Any]:
    """One matrix for all ranks, whose gradient is once not finite; and one more, added later."""
    from skipless.optim import SOAP

    param = Parameter(torch.eye(4))
    optimizer = SOAP([param], share=True, precondition_frequency=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for now in range(5):
            param.grad = torch.full((4, 4), float("nan")) if now == 1 else torch.eye(4) + now
            optimizer.step()
    first_kept = len(kept(dict(optimizer.state)))
    more = Parameter(torch.eye(4))
    optimizer.add_param_group({"params": [more]})
    for _ in range(2):
        more.grad = torch.eye(4)
        optimizer.step()
    before = whole([param, more])
    optimizer.param_groups = [dict(group, lr=0.0) for group in optimizer.param_groups]
    optimizer.step()
    told = [str(warning.message) for warning in caught]
    stopped = list(map(torch.equal, whole([param, more]), before))
    found = {"stopped": stopped, "kept": first_kept, "told": told, "params": whole([param, more])}
    return found | {"later": len(kept(dict(optimizer.state)))}


def cast_late(cast: tuple[int, ...]) -> dict[str, Any]:
    """Parameters are cast just before the state is gathered: what is saved, and where the run goes from there."""
    from skipless.optim import SOAP, gathered_state

    params = draw(torch.float32)
    optimizer = SOAP(groups(params), **HYPER, share=True)
    train(optimizer, params, range(CUT))
    for index in cast:
        params[index].data = params[index].data.double()
    saved, at = gathered_state(optimizer), whole(params)
    train(optimizer, params, range(CUT, STEPS))
    return {"saved": saved, "at": at, "end": whole(params)}


def work(rank: int, world: int, folder: Path, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world)}
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    found = {
        "shared": {str(dtype): shared(folder, dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16)},
        "curves": {
            f"{kind} {wrap} {dtype}": descend(kind, wrap, dtype)
            for kind in ("adamw", "soap", "muon")
            for wrap in (("ddp", "fsdp") if world > 1 else ("ddp",))
            for dtype in (torch.float64, torch.float32)
        },
    }
    found["by torch"] = saved_by_torch()
    found["cast late"] = {cast: cast_late(cast) for cast in CAST}
    if world > 1:
        dtype = {4: torch.float64, 2: torch.bfloat16}[world]
        found |= {"cut": {str(dtype): cut_up(folder, dtype)}, "refused": refused(), "few": few()}
    torch.save(found, folder / f"{world}-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    jaxtyping.install_import_hook("skipless.optim", "typecheck.checked")  # all of skipless takes ten seconds
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)
    # Once, before the fork, and by name: a package imports nothing before that.
    from skipless.optim import SOAP, MuonWithAdamW, OptimizerConfig, build_optimizer, gathered_state  # noqa: F401

    import_what_ranks_use()
    folder = Path(sys.argv[1])
    for world in WORLDS:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        context = multiprocessing.get_context("fork")
        ranks = [context.Process(target=work, args=(rank, world, folder, port), daemon=True) for rank in range(world)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(120)
        if any(process.exitcode != 0 for process in ranks):
            sys.exit(f"{world} ranks: exit codes {[process.exitcode for process in ranks]}")


if __name__ == "__main__":
    main()
