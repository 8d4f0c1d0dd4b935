"""Assumptions of a plan."""

from dataclasses import dataclass

from skipless.errors import InputError


@dataclass(frozen=True)
class Assumptions:
    """Efficiencies that a plan assumes. None of them was measured: no accelerator was available.

    Attributes:
        mfu: model FLOPs utilisation: share of the peak FLOP/s, at the run's precision, that forward and backward passes
            reach; also that of the bf16 peak that Muon's products reach.
        product_share: share of the peak fp32 FLOP/s that the optimizer's matrix products reach.
        qr_share: share of the peak fp32 FLOP/s that SOAP's QR decompositions reach. It is low because the matrices are
            small.
        bandwidth_share: share of the memory bandwidth that element-wise updates reach.
        link: bandwidth between GPUs, in bytes a second and each direction. Gradients are sent during the backward pass
            of the last micro-batch, and shards of FSDP during any pass. What sharded SOAP and Muon send is not
            overlapped with computation.
        usable: share of the memory that the counted tensors may fill. The rest is for temporary tensors, fragmentation
            and the driver.
    """

    mfu: float = 0.35
    product_share: float = 0.5
    qr_share: float = 0.02
    bandwidth_share: float = 0.7
    link: float = 50e9
    usable: float = 0.85

    def __post_init__(self) -> None:
        for name in ("mfu", "product_share", "qr_share", "bandwidth_share", "usable"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} {getattr(self, name)} is no share; give a number above 0, at most 1")
        if not self.link > 0:
            raise InputError(f"link {self.link}: give bytes a second, above 0")
