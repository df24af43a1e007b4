"""Cost model of the partition: time on the accelerator, transfers included, against time on the host."""

from __future__ import annotations

from dataclasses import dataclass

from tvm_ahcq.codegen.lower.offloaded_op import OffloadedOp
from tvm_ahcq.errors import DeviceError

OFFLOAD = ("auto", "all")
"""Which operators go to the accelerator: those that it does sooner than a small host, or all that it can do."""


@dataclass(frozen=True)
class CostModel:
    """Speeds of accelerator, link and host.

    The defaults are those of a small board: an ECP5 at 100 MHz, memory that both sides reach at 8 bytes a cycle, and an
    embedded processor without matrix instructions. On a server's processor nearly everything would stay on the host.

    Attributes
    ----------
    clock : float
        Cycles a second of the accelerator.
    link : float
        Bytes a second between the host and the accelerator's memory.
    host : float
        Multiply-adds a second of the host.
    call : float
        Seconds that a run of a program costs besides.
    """

    clock: float = 100e6
    link: float = 400e6
    host: float = 1e9
    call: float = 20e-6

    @classmethod
    def named(cls, offload: str) -> CostModel:
        """``"auto"``: a small board; ``"all"``: a host so slow that whatever the accelerator can do goes there.

        Raises
        ------
        DeviceError
            For any other name.
        """
        if offload not in OFFLOAD:
            raise DeviceError(f"offload is {offload!r}; expected one of {', '.join(OFFLOAD)}.")
        return cls() if offload == "auto" else cls(host=1.0)

    def reason(self, lowered: OffloadedOp, macs: int) -> str:
        """Return the reason to keep an operator on the host; "" if the accelerator is faster.

        Parameters
        ----------
        lowered : OffloadedOp
            As a program; of one prompt, where its work grows with their number.
        macs : int
            Its multiply-adds; of one prompt too.
        """
        compute = lowered.cycles / self.clock
        transfer = lowered.transfer_bytes / self.link + lowered.runs * self.call
        if compute + transfer <= macs / self.host:
            return ""
        return (
            f"not worth it{' for a prompt' if lowered.batched else ''}: {1e6 * transfer:.0f} us to move its data "
            f"and {1e6 * compute:.0f} us to compute, against {1e6 * macs / self.host:.0f} us on the host"
        )
