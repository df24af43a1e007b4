"""An operator's program alone in external memory: for the self-test, for tuning, and for measurements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ahcq.codegen.isa.encoding import INSTRUCTION_BYTES
from tvm_ahcq.codegen.isa.layout import code_blocks, pack_codes

from .address_space import DeviceMemory, move_constants
from .offloaded_op import InputLayout, OffloadedOp

_ALIGNMENT = 64


@dataclass(frozen=True)
class StandaloneProgram:
    """A program, and the memory that it runs in.

    Attributes
    ----------
    base : int
        Bytes of scratch (inputs, results), from address 0 on.
    data : bytes
        Memory behind them: constants, then the program.
    start, length : int
        Address of the program; number of its instructions.
    """

    base: int
    data: bytes
    start: int
    length: int

    @property
    def program(self) -> bytes:
        """The instructions."""
        return self.data[self.start - self.base :]

    def image(self, inputs: dict[int, bytes] | None = None, size: int = 0) -> bytearray:
        """Return all of external memory.

        Parameters
        ----------
        inputs : dict of int to bytes, optional
            Contents of the scratch by address; 0 elsewhere.
        size : int
            Least bytes of the memory.
        """
        memory = bytearray(self.base) + self.data
        memory += bytes(max(0, size - len(memory)))
        for address, data in (inputs or {}).items():
            memory[address : address + len(data)] = data
        return memory


def standalone(memory: DeviceMemory, program: bytes) -> StandaloneProgram:
    """Place the constants of a program behind its scratch, and the program behind its constants."""
    base = -(-memory.scratch_bytes // _ALIGNMENT) * _ALIGNMENT
    constants, program = memory.constants, move_constants(program, base)
    return StandaloneProgram(base, constants + program, base + len(constants), len(program) // INSTRUCTION_BYTES)


def packed_inputs(operator: OffloadedOp, *tensors: np.ndarray) -> dict[int, bytes]:
    """Pack the tensors of an operator's first run as the runtime module does.

    Parameters
    ----------
    operator : OffloadedOp
        Lowered operator.
    *tensors : numpy.ndarray
        uint8 ``(total, channels)`` of each input; rows of later runs are ignored.

    Returns
    -------
    dict of int to bytes
        Contents of device memory by address.
    """
    return {given.address: _packed(given, codes) for given, codes in zip(operator.inputs, tensors, strict=True)}


def _packed(layout: InputLayout, codes: np.ndarray) -> bytes:
    """Codes of the first run, 0 where a place of the layout has no row."""
    rows = np.zeros((layout.batch * layout.rows, layout.channels), np.uint8)
    present = min(len(rows), layout.total, len(codes))
    rows[:present] = codes[:present]
    exists = np.arange(len(rows)).reshape(layout.batch, layout.rows) < present
    blocks = []
    for batch, real in zip(rows.reshape(layout.batch, layout.rows, layout.channels), exists, strict=True):
        row, row_exists = np.maximum(layout.row_at, 0), (layout.row_at >= 0) & real[np.maximum(layout.row_at, 0)]
        halves = zip(layout.code_of, np.split(layout.channel_at, len(layout.code_of)), strict=True)
        parts = [
            np.where(channel >= 0, table[batch[row][:, np.maximum(channel, 0)]], -1 - channel)
            for table, channel in halves
        ]
        codes_of_batch = np.where(row_exists[:, None], np.concatenate(parts, 1), 0)
        blocks.append(code_blocks(codes_of_batch.astype(np.uint8), layout.dim))
    return pack_codes(np.stack(blocks))
