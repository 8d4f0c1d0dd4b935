"""Kinds of attention beside PyTorch's: time of a step forth and back, and condition numbers at initialisation.

    python benchmarks/attention_family.py [--tokens 4096] [--rounds 20] [--device cpu]
    python benchmarks/attention_family.py --memory
    python benchmarks/attention_family.py --conditioning

Times are medians of rounds in which every kind runs once, one after another, over those of
`scaled_dot_product_attention`. The last line is of `ConditionedTokens` over a LayerNorm. On a busy machine the ratios
are worth little. Memory is the peak of a step forth and back of two heads, over what the process had with its inputs,
each kind and length in a process of its own (Linux, or `--device cuda`).
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.nn import functional

from skipless import SkiplessInit, initialize_, remove_skips_
from skipless.conditioning import compare_attention, parameter_bound
from skipless.models import block_views, create_model, initialize_conditioned_, spectral_conditioning_
from skipless.nn import (
    AttentionCore,
    ConditionedTokens,
    ExponentialSPA,
    OrthogonalAttention,
    PolynomialAttention,
    ShapedAttention,
    UniformSPA,
    ValueSkipInit,
)

WIDTH, HEADS, TOKENS = 48, 3, 17  # of what is conditioned: K is formed as a matrix
LENGTHS = (1024, 2048, 4096, 8192)  # whose memory is measured


def kinds_of(device: str) -> dict[str, Callable[..., Tensor]]:
    """Every kind of attention, by name."""
    kinds: dict[str, Callable[..., Tensor]] = {"softmax (SDPA)": functional.scaled_dot_product_attention}
    cores: dict[str, AttentionCore] = {
        "shaped": ShapedAttention(),
        "V-SkipInit": ValueSkipInit(),
        "orthogonal": OrthogonalAttention(),
        "polynomial, p = 1": PolynomialAttention(1),
        "polynomial, p = 2": PolynomialAttention(2),
        "polynomial, p = 3": PolynomialAttention(3),
    }
    for name, core in cores.items():
        kinds[name] = core.to(device)
        if core.causal_ok:
            kinds[f"{name}, causal"] = lambda *qkv, core=core: core(*qkv, causal=True)
    kinds["softmax (SDPA), causal"] = lambda *qkv: functional.scaled_dot_product_attention(*qkv, is_causal=True)
    return kinds


def times(tokens: int, rounds: int, device: str) -> None:
    """Print the time of each kind over plain attention's."""
    parts = [torch.randn(1, 6, tokens, 64, device=device, requires_grad=True) for _ in range(3)]
    kinds = kinds_of(device)
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(rounds + 2):
        for name, attend in kinds.items():
            taken = _seconds(lambda attend=attend: attend(*parts).sum().backward(), device)
            if turn >= 2:
                found[name].append(taken)
    print("| attention | ms | over SDPA |\n|---|--:|--:|")
    for name, taken in found.items():
        plain = "softmax (SDPA), causal" if name.endswith("causal") else "softmax (SDPA)"
        median = statistics.median(taken)
        print(f"| {name} | {1e3 * median:.1f} | {median / statistics.median(found[plain]):.2f} |")
    x = torch.randn(8, 197, 384, device=device, requires_grad=True)
    layer = ConditionedTokens().to(device)
    norm = torch.nn.LayerNorm(384).to(device)
    both = [[_seconds(lambda of=of: of(x).sum().backward(), device) for _ in range(rounds)] for of in (layer, norm)]
    print(f"\nConditionedTokens, 8 x 197 x 384: {1e3 * statistics.median(both[0]):.1f} ms; LayerNorm "
          f"{1e3 * statistics.median(both[1]):.1f} ms")  # fmt: skip


def memory(device: str) -> None:
    """Print the peak memory of each kind by length."""
    names = ["softmax, written out", *kinds_of("cpu")]
    print("| attention | " + " | ".join(f"n = {n:,}" for n in LENGTHS) + " |\n|---|" + "--:|" * len(LENGTHS))
    for name in names:
        found = []
        for n in LENGTHS:  # a process of its own, forked before torch has computed anything
            with multiprocessing.get_context("fork" if device == "cpu" else "spawn").Pool(1) as pool:
                found.append(pool.apply(_peak, (name, n, device)))
        print(f"| {name} | {' | '.join(f'{peak / 2**20:.1f}' for peak in found)} |", flush=True)


def _written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


def _peak(name: str, n: int, device: str) -> int:
    """Bytes of a step beyond its inputs."""
    torch.set_num_threads(1)
    attend = _written_out if name == "softmax, written out" else kinds_of(device)[name]
    small, parts = (
        [torch.randn(1, 2, size, 64, device=device, requires_grad=True) for _ in range(3)] for size in (64, n)
    )
    attend(*small).sum().backward()  # what the first call loads
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        attend(*parts).sum().backward()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the peak of what is resident starts anew
    before = _resident("VmRSS")
    attend(*parts).sum().backward()
    return _resident("VmHWM") - before


def _resident(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{which}:"))


def _seconds(call: Callable[[], None], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def conditioning() -> None:
    """Print the tables of docs/family.md."""
    kinds = {"depth": 1, "embed_dim": WIDTH, "num_heads": HEADS}
    make = lambda: remove_skips_(create_model("vit_tiny_patch16_224", skip=True, seed=0, **kinds))  # noqa: E731
    model = initialize_(make(), SkiplessInit(2.0, 0.6, 3.0), generator=Generator().manual_seed(0))
    x = functional.layer_norm(torch.randn(4, TOKENS, WIDTH, generator=Generator().manual_seed(1)), (WIDTH,))
    cores: dict[str, AttentionCore] = {
        **{f"polynomial, p = {p}, 1/sqrt(n)": PolynomialAttention(p) for p in (1, 2, 3)},
        **{f"polynomial, p = {p}, solved": PolynomialAttention(p, "solved") for p in (1, 2, 3)},
        "shaped": ShapedAttention(),
        "V-SkipInit": ValueSkipInit(),
        "E-SPA": ExponentialSPA(TOKENS),
        "U-SPA, rho = 0.5": UniformSPA(TOKENS, (0.5,)),
        "orthogonal": OrthogonalAttention(),
    }
    print("| attention | mean A_ii | kappa(A) | rank of A | kappa(K) |\n|---|--:|--:|--:|--:|")
    for one in compare_attention(model, cores, x).cores:
        print(
            f"| {one.name} | {one.diagonal:.3g} | {one.kappa_attention:.3g} | {one.rank} | {one.kappa_jacobian:.3g} |"
        )
    print("\n| weights | kappa(J) | bound | kappa(Lambda) | kappa(W_Q) | kappa(W_V) |\n|---|--:|--:|--:|--:|--:|")
    library = create_model("vit_tiny_patch16_224", skip=True, seed=0, **kinds)
    changed = {
        "timm's": library,
        "conditioned initialisation": initialize_conditioned_(
            create_model("vit_tiny_patch16_224", skip=True, seed=0, **kinds), generator=Generator().manual_seed(0)
        ),
        "spectral conditioning, lambda = 10": spectral_conditioning_(
            create_model("vit_tiny_patch16_224", skip=True, seed=0, **kinds)
        ),
        "spectral conditioning, exact": spectral_conditioning_(
            create_model("vit_tiny_patch16_224", skip=True, seed=0, **kinds), form="exact"
        ),
        "the paper's": model,
    }
    for name, one in changed.items():
        found = parameter_bound(block_views(one)[0], x[0])
        numbers = (found.measured, found.bound, found.softmax_derivative, found.w_q, found.w_v)
        print(f"| {name} | {' | '.join(f'{number:.3g}' for number in numbers)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action="store_true", help="peak memory by length, in MiB")
    parser.add_argument("--conditioning", action="store_true", help="the tables of docs/family.md")
    given = parser.parse_args()
    if given.conditioning:
        conditioning()
    elif given.memory:
        memory(given.device)
    else:
        times(given.tokens, given.rounds, given.device)
