"""FSDP2 with one rank, for `test_loop.py`: `python one_shard.py DEVICE FOLDER` trains sharded and whole."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.distributed as dist
from reference.tiny_run import tiny_task
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from skipless.optim import SOAP
from skipless.training.processes.sharding import full_tensor, shard_


def trained(device: torch.device, *, sharded: bool) -> list[Tensor]:
    task = tiny_task(dropout=0.0).to(device).eval()
    if sharded:
        shard_(task, init_device_mesh(device.type, (1,), mesh_dim_names=("data_parallel",)))
    optimizer = SOAP(task.parameters(), lr=1e-3, precondition_frequency=2)
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(8).to(device)
    for _ in range(5):
        task(images, labels)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return [full_tensor(parameter.detach()).cpu() for parameter in task.parameters()]


def main() -> None:
    device, folder = torch.device(sys.argv[1]), Path(sys.argv[2])
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}
    backend = "nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    torch.save(trained(device, sharded=True), folder / "sharded.pt")
    torch.save(trained(device, sharded=False), folder / "whole.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
