"""Toggles of flip-flops per multiply-add: the accelerator and floating-point cores on a real layer of vit_t.

    python benchmarks/fpga_activity.py --table vit_t.json

The layer is taken out of the quantized model as it is compiled: the codes that arrive at it in a generated scene, its
packed weights, multipliers and zero points, lowered as the compiler lowers them; the floating-point cores get the
activations and weights of the float model at the same rows of the same scene. The Verilated RTL of each whole core
computes the layer, and Verilator counts the toggles of every signal (SAIF); flip-flops are what clocked assignments of
the RTL write. The accelerator's memory must be that of the functional simulator afterwards, the results of the other
cores those of their model, bit by bit.

Without ``--table`` the model is calibrated first, on generated scenes. Writes ``benchmarks/results/fpga_activity.md``.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import tvm_ahcq as ahcq
from tvm_ahcq.api import QuantizedModel
from tvm_ahcq.cli.compile import generated_images
from tvm_ahcq.codegen.devices.device import Device, open_device
from tvm_ahcq.codegen.hardware import simulator
from tvm_ahcq.codegen.hardware.baseline import model, sources
from tvm_ahcq.codegen.hardware.baseline.simulator import counting_core, simulate
from tvm_ahcq.codegen.hardware.toggle_count import Register, flip_flops, registers
from tvm_ahcq.codegen.isa.config import Config, named
from tvm_ahcq.codegen.lower.linear.layer import LinearLayer
from tvm_ahcq.codegen.lower.linear.operator import lower_linear
from tvm_ahcq.codegen.lower.offloaded_op import OffloadedOp
from tvm_ahcq.codegen.lower.standalone import packed_inputs, standalone
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.models.sam.image import ResizeLongestSide, preprocess
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.runtime.weights import QLinearWeight, expand
from tvm_ahcq.scenes import generate
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.simulate import SimulatedSites, exact_layer_norm, using_sites

PAGE = Path(__file__).resolve().parent / "results" / "fpga_activity.md"
SCENE = 1000
"""Number of the generated scene; the model was neither trained nor calibrated on it."""
FUNCTION = "encode_image"
_PAGE_BYTES = 4096

MEANING = """\
Each core computes the same rows and outputs of the layer (so many as the headings say) once, from its real
operands: the accelerator the codes and 4-bit weights as the compiler lowers them (results are the accumulators of
each channel group, as the host takes them), a floating-point core the activations and weights of the float model.
Both hold a weight for all of these rows; an operand passes 16 columns of the array, or all lanes. Counted are the
changes of flip-flops in RTL simulation, every signal that a clocked assignment writes, from the end of reset until
the host has seen the end: of the accelerator all of it, with loading, scaling, storing, instruction checks and its
AXI port; of a floating-point core its streams, lanes and results, but no memory port and no scaling, for it has
none. Multiplying is the share of cycles in which a row is fed.

This is activity, not energy, and no ratio of energies follows from it. Left out are glitches and everything
combinational, what happens inside DSP blocks and block RAM (their read registers are counted), the clock tree, and
wires: a toggle on a short wire counts as much as one on a long wire. A ratio compares counts of one run each, of
one scene. Registers are those of the RTL: synthesis puts some into DSP blocks and block RAM and removes others, so
a netlist has fewer flip-flops than the tables below."""

ACCELERATOR_UNITS = {
    r"u_matrix\.u_array\..*\.u_pe\.": "array: elements",
    r"u_matrix\.u_array\.": "array: skew, decoders",
    r"u_matrix\.u_acc\.": "accumulators",
    r"u_matrix\.": "sequencers of the array",
    r"u_vector\.": "vector unit: lanes and sequencer",
    r"u_scratchpads\.": "scratchpads: addresses and words",
    r"u_(load|store)\.": "load and store",
    r"": "control, registers, checks",
}
CORE_UNITS = {
    r".*\.u_multiply\.": "lanes: multipliers",
    r".*\.u_add\.": "lanes: adders",
    r".*\.u_lane\.": "lanes: operands, weights, addresses, results",
    r"": "streams and control",
}
"""First pattern that a flip-flop's path begins with -> unit."""
MEMORIES = "read registers of memories"
"""Unit of the registers behind memories, which are part of a block RAM or stand behind one."""


@dataclass(frozen=True)
class Layer:
    """A linear layer and its inputs in some rows.

    Attributes
    ----------
    codes : numpy.ndarray
        ``(M, Kp)`` uint8, as ``ahcq.grouped_linear`` takes them.
    parameters : LinearLayer
        Of that operator.
    operands : numpy.ndarray or None
        All values that `codes` may have, where these are operands of an interval encoder's table.
    values, weight : numpy.ndarray
        ``(M, K)`` and ``(N, K)`` float32 of the float model.
    """

    codes: np.ndarray
    parameters: LinearLayer
    operands: np.ndarray | None
    values: np.ndarray
    weight: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, inputs, outputs of the float layer."""
        return len(self.values), self.values.shape[1], len(self.weight)


@dataclass(frozen=True)
class Activity:
    """Activity of a core for a layer.

    Attributes
    ----------
    core : str
        Its name.
    cycles : int
        Of the program, or of all tiles.
    busy : float
        Share of cycles in which a row is multiplied.
    registers : list of Register
        Flip-flops.
    units : dict of str to str
        Pattern -> unit.
    """

    core: str
    cycles: int
    busy: float
    registers: list[Register]
    units: dict[str, str]

    @property
    def toggles(self) -> int:
        """Toggles of all flip-flops."""
        return sum(each.toggles for each in self.registers)

    @property
    def bits(self) -> int:
        """Number of flip-flops."""
        return sum(each.bits for each in self.registers)

    def by_unit(self) -> list[tuple[str, int, int]]:
        """Unit, flip-flops, toggles."""
        bits, toggles = Counter[str](), Counter[str]()
        for each in self.registers:
            in_memory = each.module == "ahcq_ram"
            unit = MEMORIES if in_memory else next(u for p, u in self.units.items() if re.match(p, each.path))
            bits[unit] += each.bits
            toggles[unit] += each.toggles
        return [(unit, bits[unit], toggles[unit]) for unit in [*self.units.values(), MEMORIES] if bits[unit]]


def arguments_of(
    executor: TorchExecutor, image: np.ndarray, operator: str, name: str
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Arguments of a named operator when a picture is encoded, and the table of an encoder whose result it takes.

    Nothing behind it is computed.
    """
    values, encoded, table = executor.start(FUNCTION, image), None, None
    for step in executor.program(FUNCTION).steps:
        if step.op == operator and step.attrs.name == name:
            arguments = [read(values) for read in step.arguments]
            same = encoded is not None and encoded.data_ptr() == arguments[0].data_ptr()
            return [each.numpy() for each in arguments], table if same else None
        encodes = step.op == "relax.ahcq.encode_intervals"
        if encodes:
            table = step.arguments[2](values).numpy()
        step.run(values)
        if encodes:  # kept, so that no other tensor takes its place in memory
            encoded = values[step.slot]
    raise DeviceError(f"{FUNCTION} has no {operator} that is called {name!r}.")


def flat_tensors(tensors: dict[str, np.ndarray | QLinearWeight]) -> dict[str, np.ndarray]:
    """Parameters as the integer graph takes them: a weight stands for three."""
    flat: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        if isinstance(value, QLinearWeight):
            flat |= zip(
                (f"{name}_{part}" for part in ("packed", "multiplier", "correction")), expand(value), strict=True
            )
        else:
            flat[name] = value
    return flat


def real_layer(qmodel: QuantizedModel, name: str, rows: slice, outputs: int | None) -> Layer:
    """Some rows and the first outputs, or all, of a layer when the generated scene is encoded."""
    image = ResizeLongestSide(qmodel.model.spec.image_size).apply_image(generate(SCENE).image)
    image = preprocess(image.transpose(2, 0, 1)[None], qmodel.model.spec)
    realised = qmodel.realise("rows")
    integer = TorchExecutor(realised.module, flat_tensors(realised.tensors), {"relax.nn.layer_norm": exact_layer_norm})
    with using_sites(SimulatedSites({})):  # what stays in float, as the quantized model has it
        arguments, operands = arguments_of(integer, image, "relax.ahcq.grouped_linear", name)
    codes, *_, bias = arguments
    weight = realised.tensors[f"{name}.weight"]
    assert isinstance(weight, QLinearWeight)
    rows_of = {part: getattr(weight, part)[:outputs] for part in ("codes", "scale", "zero_point")}
    parameters = LinearLayer(replace(weight, **rows_of), bias[:outputs])
    floats = TorchExecutor(qmodel.annotated, qmodel.model.params)
    (values, float_weight, _), _ = arguments_of(floats, image, "relax.ahcq.linear", name)
    return Layer(
        codes.reshape(-1, codes.shape[-1])[rows],
        parameters,
        operands,
        values.reshape(-1, values.shape[-1])[rows],
        float_weight[:outputs],
    )


def device_memory(operator: OffloadedOp, codes: np.ndarray) -> tuple[bytes, int, int]:
    """External memory of a program that takes all rows in one run; address and length of the program."""
    if operator.runs != 1 or operator.output.total != len(codes):
        raise DeviceError(f"{len(codes)} rows take {operator.runs} runs of the program; give fewer.")
    program = standalone(operator.memory, operator.program)
    memory = program.image(packed_inputs(operator, codes))
    memory += bytes(-len(memory) % _PAGE_BYTES)
    return bytes(memory), program.start, program.length


def run(device: Device, memory: bytes, start: int, length: int) -> tuple[bytes, dict[str, int]]:
    """Memory and counters after a program."""
    device.copy_in(0, memory)
    ended = device.run(start, length, 3600)
    if ended.error != "none":
        raise DeviceError(f"{device.name}: the program ends with {ended}.")
    return device.copy_out(0, len(memory)), device.counters()


def accelerator_activity(config: Config, layer: Layer, folder: Path) -> Activity:
    """Return the activity of the accelerator.

    Raises
    ------
    DeviceError
        If memory after the program is not that of the functional simulator.
    """
    lowered = lower_linear(config, len(layer.codes), layer.parameters, layer.operands)
    memory, start, length = device_memory(lowered, layer.codes)
    path = folder / "accelerator.saif"
    library = simulator.build(config, True)
    with Device(f"rtl:{library},memory={len(memory)},toggles={path}") as device:
        memory_of_rtl, counters = run(device, memory, start, length)
    with open_device("fsim", config, memory_bytes=len(memory), threads=1) as device:
        memory_of_fsim, _ = run(device, memory, start, length)
    if memory_of_rtl != memory_of_fsim:
        raise DeviceError(f"{config.name}: memory of RTL and functional simulator differs.")
    parameters = [f"-G{name}={value}" for name, value in config.parameters().items()]
    known, _ = flip_flops(simulator.TOP, simulator.rtl_sources(), parameters)
    busy = counters["array_busy"] / counters["cycles"]
    return Activity(
        f"accelerator, `{config.name}`",
        counters["cycles"],
        busy,
        complete(path, simulator.TOP, known),
        ACCELERATOR_UNITS,
    )


def core_activity(core: model.Core, layer: Layer, folder: Path) -> Activity:
    """Return the activity of a floating-point core.

    Raises
    ------
    DeviceError
        If its results are not those of the model.
    """
    rows, inputs, outputs = layer.shape
    weights = np.zeros((inputs, -(-outputs // core.lanes) * core.lanes), np.float32)
    weights[:, :outputs] = layer.weight.T
    operands, weights = (words(core, each) for each in (layer.values, weights))
    tiles = [(operands, weights[:, first : first + core.lanes]) for first in range(0, weights.shape[1], core.lanes)]
    path = folder / f"{core.name}.saif"
    cycles, results = simulate(counting_core(core), core, tiles, toggles=path)
    if not np.array_equal(results, np.concatenate([model.gemm(*tile).ravel() for tile in tiles])):
        raise DeviceError(f"{core.name}: results are not those of the model.")
    parameters = [f"-G{name}={value}" for name, value in core.parameters().items()]
    known, _ = flip_flops(sources.TOP, sources.rtl_sources(), parameters)
    return Activity(
        f"`{core.name}`", cycles, len(tiles) * inputs * rows / cycles, complete(path, sources.TOP, known), CORE_UNITS
    )


def words(core: model.Core, values: np.ndarray) -> np.ndarray:
    """Bits of float32 numbers; for bf16 rounded to nearest, in upper halves."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    if core.format == "fp32":
        return bits
    return (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) & np.uint32(0xFFFF0000)


def complete(path: Path, top: str, known: dict[str, str]) -> list[Register]:
    """Return the flip-flops that a simulation counted, and print the names of those that are missing."""
    counted, missing = registers(path, top, known)
    if missing:
        print(f"{top}: {len(missing)} of {len(known)} names are not in the file: {', '.join(missing[:20])}", flush=True)
    return counted


def table(name: str, layer: Layer, activities: list[Activity]) -> list[str]:
    """Rows of one layer."""
    rows, inputs, outputs = layer.shape
    macs, zeros = rows * inputs * outputs, (layer.values == 0).mean()
    commonest = np.bincount(layer.codes.ravel()).max() / layer.codes.size
    lines = [
        f"## `{name}`: {rows} x {inputs} x {outputs}, {macs / 1e6:.2f} million multiply-adds",
        "",
        f"The commonest code is that of {commonest:.0%} of the accelerator's operands; {zeros:.0%} of the float "
        "operands are 0.",
        "",
        "| core | cycles | multiplying | flip-flops | toggles, millions | toggles a multiply-add "
        "| times the accelerator's | a flip-flop and cycle |",
        "|---" * 8 + "|",
    ]
    for each in activities:
        cells = [
            each.core,
            f"{each.cycles:,}",
            f"{each.busy:.0%}",
            f"{each.bits:,}",
            f"{each.toggles / 1e6:.1f}",
            f"{each.toggles / macs:.1f}",
            f"{each.toggles / activities[0].toggles:.2f}",
            f"{each.toggles / each.bits / each.cycles:.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| core | unit | flip-flops | toggles a multiply-add | share |", "|---" * 5 + "|"]
    for each in activities:
        lines += [
            f"| {each.core} | {unit} | {bits:,} | {toggles / macs:.2f} | {toggles / each.toggles:.0%} |"
            for unit, bits, toggles in each.by_unit()
        ]
    return [*lines, ""]


def page(sections: list[str]) -> str:
    """Return the page; of files that were given, the page names only the last part."""
    shown = [Path(each).name for each in sys.argv[1:]]
    return "\n".join(
        [
            "# Toggles of flip-flops per multiply-add",
            "",
            "Written by `benchmarks/fpga_activity.py`:",
            "",
            f"`{' '.join(['python', 'benchmarks/fpga_activity.py', *shown])}`",
            "",
            MEANING,
            "",
            *sections,
        ]
    )


def quantized(table: Path | None) -> QuantizedModel:
    """Return vit_t, quantized by the default recipe."""
    calibration = generated_images() if table is None else QuantTable.load(table)
    return ahcq.quantize(ahcq.from_sam("vit_t"), calibration)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="ecp5_16x16", help="of configs.yaml (default: %(default)s)")
    parser.add_argument(
        "--layers",
        nargs="+",
        metavar="NAME[:OUTPUTS]",
        default=["blocks.4.mlp.lin1"],
        help="of the image encoder, and how many outputs (default: blocks.4.mlp.lin1)",
    )
    parser.add_argument("--rows", type=int, default=64, help="tokens (default: %(default)s)")
    parser.add_argument("--first", type=int, default=96, help="the first of them (default: %(default)s of 256)")
    parser.add_argument(
        "--cores",
        nargs="+",
        default=["fp32:48"],
        metavar="FORMAT:LANES",
        help="floating-point cores (default: fp32:48)",
    )
    parser.add_argument("--table", type=Path, help="quantizers that `tvm-ahcq compile` saved, instead of calibration")
    options = parser.parse_args()
    cores = [model.Core(name, int(lanes), 3) for name, lanes in (each.split(":") for each in options.cores)]
    qmodel, sections = quantized(options.table), []
    with tempfile.TemporaryDirectory() as folder:
        for name, _, outputs in (each.partition(":") for each in options.layers):
            rows = slice(options.first, options.first + options.rows)
            layer = real_layer(qmodel, f"image_encoder.{name}", rows, int(outputs) if outputs else None)
            activities = [accelerator_activity(named(options.config), layer, Path(folder))]
            activities += [core_activity(core, layer, Path(folder)) for core in cores]
            sections += table(name, layer, activities)
            PAGE.write_text(page(sections) + "\n", encoding="utf-8")
            print("\n".join(sections), flush=True)
    print(f"written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
