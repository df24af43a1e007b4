"""Named configurations of the accelerator."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tvm_ahcq.codegen.isa.generated.isa import CONFIGS, LIMITS
from tvm_ahcq.errors import DeviceError


@dataclass(frozen=True)
class Config:
    """Sizes of one accelerator; see ``configs.yaml``.

    Attributes
    ----------
    name : str
        Its name there.
    dim : int
        Rows and columns of the array; elements of a scratchpad word.
    lanes : int
        Elements that the vector unit takes in a cycle.
    bus_chunks : int
        Chunks of 8 bytes in a beat of the bus.
    act_depth, wgt_depth, acc_depth, vec_depth, out_depth, lgt_depth : int
        Words of each scratchpad.
    stat_depth : int
        Row maxima of attention.
    hash : int
        What programs for this configuration are marked with.
    """

    name: str
    dim: int
    lanes: int
    bus_chunks: int
    act_depth: int
    wgt_depth: int
    acc_depth: int
    vec_depth: int
    out_depth: int
    lgt_depth: int
    stat_depth: int
    hash: int

    @property
    def beat_bytes(self) -> int:
        """Bytes that the bus carries in a cycle, each way."""
        return LIMITS["chunk_bytes"] * self.bus_chunks

    def parameters(self) -> dict[str, int]:
        """The parameters of the RTL top module."""
        names = (field.name for field in fields(self) if field.name != "name")
        return {"".join(part.capitalize() for part in name.split("_")): getattr(self, name) for name in names}

    def depth(self, memory: str) -> int:
        """Words of a scratchpad; of a table, chunks of two entries."""
        return {"decode": 32, "encode": 32}.get(memory) or getattr(self, f"{memory}_depth")

    def words(self, memory: str, chunks: int) -> int | None:
        """Scratchpad words in that many 8-byte chunks; None if not whole."""
        if memory in ("decode", "encode"):
            return chunks
        bits = self.dim * (32 if memory == "vec" else 4)
        return chunks * 64 // bits if chunks * 64 % bits == 0 else None


def named(name: str) -> Config:
    """The configuration of that name.

    Raises
    ------
    DeviceError
        If there is none.
    """
    if name not in CONFIGS:
        raise DeviceError(f"No accelerator configuration is called {name!r}; there are {', '.join(CONFIGS)}.")
    return Config(name, **CONFIGS[name])
