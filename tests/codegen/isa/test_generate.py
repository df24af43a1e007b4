"""The generated files against their definition."""

from __future__ import annotations

from tvm_ahcq.codegen.isa.generate import generated_files, read_definition


def test_generated_files_are_current() -> None:
    for path, text in generated_files().items():
        assert path.read_text() == text, f"{path.name}: run python -m tvm_ahcq.codegen.isa.generate"


def test_fields_of_an_instruction_do_not_overlap_and_fit() -> None:
    isa = read_definition()
    for instruction in isa["instructions"].values():
        used = [bit for first, width in instruction["fields"].values() for bit in range(first, first + width)]
        assert len(used) == len(set(used))
        assert max(used) < isa["instruction_bits"]


def test_register_offsets_and_codes_are_distinct() -> None:
    isa = read_definition()
    offsets = [offset for offset, _ in isa["registers"].values()]
    assert len(offsets) == len(set(offsets)) and all(offset % 4 == 0 for offset in offsets)
    for table in (isa["errors"], isa["memories"]):
        assert len(set(table.values())) == len(table)


def test_configurations_with_other_sizes_have_other_hashes() -> None:
    hashes = [config["hash"] for config in read_definition()["configs"].values()]
    assert len(set(hashes)) == len(hashes)
