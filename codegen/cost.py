"""The cost model: time of an operator on the accelerator, transfers included, against its time on the host."""

from __future__ import annotations

from dataclasses import dataclass

from tvm_ahcq.codegen.lower.offloaded_op import OffloadedOp
from tvm_ahcq.errors import DeviceError

OFFLOAD = ("auto", "all")
"""Offload policies: operators that are faster on the accelerator than on a small host, or all that it supports."""


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
        """Return the model of a policy: ``"auto"`` a small board; ``"all"`` a host so slow that it gives all work away.

        Raises
        ------
        DeviceError
            For any other name.
        """
        if offload not in OFFLOAD:
            raise DeviceError(f"offload is {offload!r}; expected one of {', '.join(OFFLOAD)}.")
        return cls() if offload == "auto" else cls(host=1.0)

    def reason(self, operator: OffloadedOp, macs: int) -> str:
        """Return the reason why an operator stays on the host; "" if the accelerator is faster.

        Parameters
        ----------
        operator : OffloadedOp
            As a program; of one prompt, where its work grows with their number.
        macs : int
            Its multiply-adds; of one prompt too.
        """
        compute = operator.cycles / self.clock
        transfer = operator.transfer_bytes / self.link + operator.runs * self.call
        accelerator, host = compute + transfer, macs / self.host
        if accelerator <= host:
            return ""
        parts = f"transfer {1e6 * transfer:.0f} + compute {1e6 * compute:.0f}"
        prompt = ", per prompt" if operator.batched else ""
        return f"cost model: accelerator {1e6 * accelerator:.0f} us ({parts}) > host {1e6 * host:.0f} us{prompt}"
