"""What a plan takes for granted."""

from dataclasses import dataclass

from skipless.errors import InputError


@dataclass(frozen=True)
class Assumptions:
    """What a plan takes for granted. None of it was measured: no accelerator was at hand.

    Attributes:
        mfu: share of the peak that forward and backward passes reach, at the run's precision.
        product_share: share of the fp32 peak that the optimizer's products reach.
        qr_share: share of the fp32 peak that the QR of SOAP's refreshes reaches; small matrices fill no GPU.
        bandwidth_share: share of the memory's bandwidth that element-wise updates reach.
        link: bytes a second that each GPU sends and takes at once. Gradients travel while the last micro-batch's
            backward pass runs, shards of FSDP while any pass runs; shared SOAP's new weights hide behind nothing.
        usable: share of the memory that the parts below may fill: the rest is for temporary tensors of single
            operations, the allocator's gaps and the driver.
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
