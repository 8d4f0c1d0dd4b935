"""Evaluations that two processes share out say what one says: object discovery, k-NN and the linear probe."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from skipless.data.scenes import write_scenes

SCRIPT = """
import json, sys
from pathlib import Path
import timm, torch
from skipless.data import ImageConfig, load_images
from skipless.data.dense import load_boxes, load_segmentation
from skipless.studies import (
    DiscoveryConfig, NeighbourConfig, PoolConfig, ProbeConfig, discover, nearest_neighbours, pooled, segment
)
from skipless.studies.study_folder import barrier, rank_and_world_size
from skipless.training.processes.launch import launch

root, out = Path(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
launch("cpu", "fp32")
pooled.SHARD = 5  # several a process
torch.manual_seed(0)
sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0}
model = timm.create_model("vit_tiny_patch16_224", **sizes).eval()
shared = {"out": out, "progress": False}
found = discover(model, load_boxes("voc12", root / "voc"), DiscoveryConfig(kinds=("k",)), examples=2, **shared)
images = load_images(ImageConfig(str(root / "imagenet"), augmentation="none", image_size=32))
near = nearest_neighbours(model, images, NeighbourConfig(ks=(3,), pool=PoolConfig(batch_size=3)), **shared)
sets = [load_segmentation("voc", root / "voc", split) for split in ("train", "val")]
probe = segment(model, *sets, ProbeConfig(protocol="patch", size=32, epochs=1), examples=0, **shared)
barrier()
if rank_and_world_size()[0] == 0:
    record = [found.record(), near.record(), [score.miou for score in probe.probe.blocks], rank_and_world_size()[1]]
    (out / "found.json").write_text(json.dumps(record))
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_processes_say_what_one_says(tmp_path: Path) -> None:
    write_scenes(tmp_path / "voc", "voc", train=8, val=5, size=32, objects="digits")
    write_scenes(tmp_path / "imagenet", "imagenet", train=23, val=11, size=32, objects="digits")
    (tmp_path / "script.py").write_text(SCRIPT)
    found = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        out.mkdir()
        starter = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *starter, str(tmp_path / "script.py"), str(tmp_path), str(out)]
        subprocess.run(command, check=True, timeout=600, capture_output=True)
        found.append(json.loads((out / "found.json").read_text()))
    assert [record.pop() for record in found] == [1, 2]
    assert found[0] == found[1]
    journals = list((tmp_path / "2").glob("tokencut-*/journal-*.jsonl"))
    assert sorted(len(path.read_text().splitlines()) for path in journals) == [6, 7]  # of 13 images
    shards = list((tmp_path / "2").glob("pooled-*/train/*.npz"))
    assert len(shards) == 5
