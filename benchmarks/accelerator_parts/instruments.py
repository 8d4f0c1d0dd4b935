"""TokenCut of a batch, the spectrum of a block, and the initialisation of a large model."""

import torch

from accelerator_parts.record import Record, repeated
from skipless.conditioning import attn_jacobian, spectrum
from skipless.evaluators import tokencut
from skipless.models import block_views, create_model, initialize_


def run_tokencut(record: Record) -> None:
    """Scenes of one object in noise, 14 x 14 and 30 x 40 tokens."""
    for rows, columns, count in ((6, 6, 2),) if record.tiny else ((14, 14, 64), (30, 40, 16)):
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(count, rows * columns, 384, generator=generator)
        grid = torch.zeros(rows, columns, dtype=torch.bool)
        grid[rows // 4 : rows // 2, columns // 4 : columns // 2] = True
        features[:, grid.flatten()] += 2 * torch.randn(count, 1, 384, generator=generator)
        size = (rows * 16, columns * 16)
        for where in dict.fromkeys((record.device, torch.device("cpu"))):
            given = features.to(where)

            def measure(given=given, grid=(rows, columns), size=size, count=count) -> list[float]:
                cut = lambda: tokencut(given, grid, image_size=size)  # noqa: E731
                return [1e3 * s / count for s in repeated(cut, record, times=7, seconds=record.left() / 4)]

            record.row(f"TokenCut, {rows} x {columns} tokens, batch {count}, on {where.type}", "ms an image", measure)


def run_spectrum(record: Record) -> None:
    """Both ends of K of a ViT-S block at initialisation."""
    tokens, sizes = (9, {"embed_dim": 48, "num_heads": 2, "img_size": 32}) if record.tiny else (197, {})
    model = create_model("vit_small_patch16_224", depth=1, **sizes, seed=0).to(record.device)
    view = block_views(model)[0]
    x = torch.randn(tokens, view.dim, generator=torch.Generator().manual_seed(0)).to(record.device)
    for skip in (False, True):
        operator = attn_jacobian(view, x, skip)
        found = spectrum(operator, max_iterations=1000)
        title = f"K{' + I' if skip else ''} of a block, {operator.shape[0]} rows, float32"
        measure = lambda operator=operator: repeated(  # noqa: E731
            lambda: spectrum(operator, max_iterations=1000), record, times=5, warm=0, seconds=record.left() / 3
        )
        record.row(title, "s", measure, f"kappa {found.kappa}")


def run_initialize(record: Record) -> None:
    """`initialize_`, of a model on the CPU and of one on the device."""
    name, sizes = ("vit_tiny_patch16_224", {"depth": 2}) if record.tiny else ("vit_large_patch16_224", {})
    for where in dict.fromkeys((record.device, torch.device("cpu"))):
        model = create_model(name, **sizes, seed=0).to(where)

        def measure(model=model) -> list[float]:
            start = lambda: initialize_(model, generator=torch.Generator().manual_seed(0), progress=False)  # noqa: E731
            return repeated(start, record, times=5, warm=1, seconds=record.left() / 4)

        record.row(f"initialize_ of {name}, on {where.type}", "s", measure)
