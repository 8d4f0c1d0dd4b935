"""Peak rates of GPUs, from the vendors' data sheets."""

import difflib
from dataclasses import dataclass

from skipless.choices import Precision
from skipless.display import Record
from skipless.errors import InputError


@dataclass(frozen=True, repr=False)
class GPU(Record):
    """Peak rates of one GPU, dense: without the doubling for sparse matrices in data sheets.

    Attributes:
        name: name with the form factor, which decides the clock rate.
        half: FLOP/s of bf16 and fp16 products with fp32 accumulation.
        single: FLOP/s of fp32 products without TF32, which neither the loop nor SOAP uses.
        bandwidth: memory bandwidth in bytes a second.
        memory: memory in bytes.
        source: the data sheet.
        bf16: whether the GPU supports bf16.
    """

    name: str
    half: float
    single: float
    bandwidth: float
    memory: int
    source: str
    bf16: bool = True

    def _summary(self) -> str:
        rates = f"{self.half / 1e12:.4g} TFLOP/s in half, {self.single / 1e12:.4g} in single precision"
        return f"{self.name}, {rates}, {self.bandwidth / 1e12:.4g} TB/s, {self.memory / 2**30:.0f} GiB"

    def peak(self, precision: Precision) -> float:
        """Return the peak FLOP/s of matrix products at a precision.

        Raises:
            InputError: if the GPU does not support the precision.
        """
        if precision == "bf16" and not self.bf16:
            raise InputError(f"{self.name} has no bf16; give --precision fp16 or fp32")
        return self.single if precision == "fp32" else self.half


_GIB = 2**30

GPUS = {
    "v100": GPU("V100 SXM2 32 GB", 125e12, 15.7e12, 900e9, 32 * _GIB, "NVIDIA V100 data sheet, 2020", bf16=False),
    "a100-40gb": GPU("A100 SXM4 40 GB", 312e12, 19.5e12, 1555e9, 40 * _GIB, "NVIDIA A100 data sheet, 2021"),
    "a100": GPU("A100 SXM4 80 GB", 312e12, 19.5e12, 2039e9, 80 * _GIB, "NVIDIA A100 data sheet, 2021"),
    "h100": GPU("H100 SXM5 80 GB", 989e12, 67e12, 3350e9, 80 * _GIB, "NVIDIA H100 data sheet, 2023"),
    "h200": GPU("H200 SXM5 141 GB", 989e12, 67e12, 4800e9, 141 * 10**9, "NVIDIA H200 data sheet, 2024"),
    "l40s": GPU("L40S 48 GB", 362e12, 91.6e12, 864e9, 48 * _GIB, "NVIDIA L40S data sheet, 2023"),
}


def find_gpu(name: str) -> GPU:
    """Return the GPU of a short name.

    Raises:
        InputError: if there is no GPU of this name.

    Example:
        >>> find_gpu("h100").peak("bf16") / 1e12
        989.0
    """
    if name.lower() not in GPUS:
        near = difflib.get_close_matches(name.lower(), GPUS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"no data sheet of the GPU {name!r} here{hint}; there are {', '.join(GPUS)}")
    return GPUS[name.lower()]
