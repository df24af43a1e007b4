"""Writing and reading the deployable file; every kind of damage is found and named."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from tvm_ahcq import __version__
from tvm_ahcq.errors import AhcqError, BundleError
from tvm_ahcq.runtime.bundle import read_bundle, write_bundle
from tvm_ahcq.runtime.manifest import TargetSpec
from tvm_ahcq.runtime.weights import QLinearWeight

LIBRARY = bytes(range(256)) * 40
GOLDEN = {"image": np.arange(12, dtype=np.uint8).reshape(2, 2, 3), "iou": np.ones((1, 4), np.float32)}


@pytest.fixture
def path(tmp_path, manifest, tensors):
    path = tmp_path / "tiny.ahcq"
    write_bundle(path, manifest, LIBRARY, tensors, GOLDEN)
    return path


def reseal(path, change):
    """Rewrite the manifest, with valid digests: what another version of the writer could have written."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
        seal = archive.comment[:-64]
    stored = json.loads(members["manifest.json"])
    change(stored)
    members["manifest.json"] = json.dumps(stored).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.comment = seal + b"0" * 64
    data = path.read_bytes()[:-64]
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode())


def test_everything_written_is_read_back(path, manifest, tensors):
    bundle = read_bundle(path)
    filled = dict(weight_bits=bundle.manifest.weight_bits, created_by=f"tvm-ahcq {__version__}", format_version=1)
    assert bundle.manifest == dataclasses.replace(manifest, **filled)
    assert bundle.library == LIBRARY
    assert list(bundle.tensors) == list(tensors)
    np.testing.assert_array_equal(bundle.tensors["image_encoder.weight"], tensors["image_encoder.weight"])
    stored, given = bundle.tensors["decoder.lin.weight"], tensors["decoder.lin.weight"]
    assert isinstance(stored, QLinearWeight)
    for field in dataclasses.fields(QLinearWeight):
        np.testing.assert_array_equal(getattr(stored, field.name), getattr(given, field.name))
    for name, array in GOLDEN.items():
        np.testing.assert_array_equal(bundle.golden[name], array)
        assert bundle.golden[name].dtype == array.dtype


def test_weight_bits_count_every_stored_byte_of_the_quantized_weights(path):
    with zipfile.ZipFile(path) as archive:
        stored = archive.getinfo("tensors/0001").file_size
    assert read_bundle(path).manifest.weight_bits == stored * 8 / 240


def test_a_layer_of_usual_size_takes_at_most_four_and_a_half_bits(tmp_path, manifest, tensors):
    rng = np.random.default_rng(0)
    index = rng.permutation(768).astype(np.int32)
    tensors["decoder.lin.weight"] = QLinearWeight(
        rng.integers(0, 16, (768, 768), dtype=np.uint8),
        4,
        np.ones(768, np.float32),
        np.full(768, 8, np.uint8),
        index,
        (192,) * 4,
        np.ones(4, np.float32),
        np.zeros(4, np.int32),
    )
    assert write_bundle(tmp_path / "b.ahcq", manifest, LIBRARY, tensors).weight_bits < 4.1


def test_codes_that_crowd_around_a_value_are_deflated_and_come_back(tmp_path, manifest, tensors):
    """As those of trained weights do; the bits a weight are counted without it."""
    rng = np.random.default_rng(0)
    given = dataclasses.replace(
        tensors["decoder.lin.weight"],
        codes=np.clip(np.rint(rng.normal(7.5, 2, (512, 256))), 0, 15).astype(np.uint8),
        scale=np.ones(512, np.float32),
        zero_point=np.full(512, 8, np.uint8),
        index=np.arange(256, dtype=np.int32),
        group_sizes=(128, 128),
    )
    tensors["decoder.lin.weight"] = given
    bits = write_bundle(tmp_path / "b.ahcq", manifest, LIBRARY, tensors).weight_bits
    with zipfile.ZipFile(tmp_path / "b.ahcq") as archive:
        member = archive.getinfo("tensors/0001")
    assert member.compress_size < 0.9 * member.file_size
    assert bits == member.file_size * 8 / given.codes.size
    np.testing.assert_array_equal(read_bundle(tmp_path / "b.ahcq").tensors["decoder.lin.weight"].codes, given.codes)


def test_floats_of_half_precision_take_half_the_bytes_and_come_back_as_float32(tmp_path, manifest, tensors):
    rounded = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float16).astype(np.float32)
    wide = rounded * np.float32(1 + 2**-20)
    tensors |= {"rounded": rounded, "wide": wide, "huge": np.full(3, 1e30, np.float32), "none": np.zeros(0, np.float32)}
    write_bundle(tmp_path / "b.ahcq", manifest, LIBRARY, tensors)
    found = read_bundle(tmp_path / "b.ahcq").tensors
    for name in ("rounded", "wide", "huge", "none"):
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], tensors[name])
    with zipfile.ZipFile(tmp_path / "b.ahcq") as archive:
        assert [archive.getinfo(f"tensors/000{n}").file_size for n in (2, 3)] == [24, 48]


def test_equal_contents_give_equal_files(path, tmp_path, manifest, tensors):
    write_bundle(tmp_path / "again.ahcq", manifest, LIBRARY, tensors, GOLDEN)
    assert (tmp_path / "again.ahcq").read_bytes() == path.read_bytes()


def test_it_is_an_ordinary_zip_with_the_documented_members(path):
    with zipfile.ZipFile(path) as archive:
        assert {"manifest.json", "library.so", "golden.npz"} < set(archive.namelist())
        assert json.loads(archive.read("manifest.json"))["model"]["name"] == "tiny"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"none\.ahcq: no such file"):
        read_bundle(tmp_path / "none.ahcq")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(BundleError, match="is a folder"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"\x89PNG\r\n\x1a\n" + bytes(100), "not an .ahcq bundle"), (b"PK\x03\x04", "truncated")],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "x.ahcq").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        read_bundle(tmp_path / "x.ahcq")


def test_an_ordinary_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.ahcq", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(BundleError, match=r"not an \.ahcq bundle"):
        read_bundle(tmp_path / "x.ahcq")


def test_truncation_anywhere_is_found(path):
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 397), len(whole) - 65, len(whole) - 64, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(BundleError):
            read_bundle(path)


def test_one_flipped_bit_anywhere_is_found(path):
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    places = {*range(0, len(whole), 61), *range(len(whole) - 200, len(whole))}
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(BundleError):
            read_bundle(path)


@pytest.mark.parametrize("member", ["manifest.json", "library.so", "tensors/0000", "tensors/0001", "golden.npz"])
def test_the_damaged_member_is_named(path, member):
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    data = bytearray(path.read_bytes())
    data[info.header_offset + 30 + len(member) + info.compress_size // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(BundleError, match=f"damaged: {member}"):
        read_bundle(path)


def test_appended_bytes_are_found(path):
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(BundleError):
        read_bundle(path)


def test_a_newer_format_says_upgrade(path):
    reseal(path, lambda stored: stored.update(format_version=4, something_new={}))
    with pytest.raises(BundleError, match=r"has bundle format 4.*reads up to 3; upgrade"):
        read_bundle(path)


def test_unknown_fields_of_this_format_are_ignored(path):
    reseal(path, lambda stored: stored.update(comment="hello"))
    assert read_bundle(path).manifest.model.name == "tiny"


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored.pop("model"),
        lambda stored: stored["model"].pop("grid"),
        lambda stored: stored["tensors"]["image_encoder.weight"].update(shape=[3, 9]),
        lambda stored: stored["tensors"]["decoder.lin.weight"].update(shape=[24, 12]),
        lambda stored: stored["tensors"].pop("decoder.lin.weight"),
        lambda stored: stored["members"].pop("library.so"),
        lambda stored: stored["members"].update(other={"sha256": "", "bytes": 0}),
        lambda stored: stored.update(sites=4),
    ],
)
def test_a_manifest_that_does_not_fit_its_contents_is_refused(path, change):
    reseal(path, change)
    with pytest.raises(BundleError, match=r"tiny\.ahcq: "):
        read_bundle(path)


@pytest.mark.parametrize(
    ("features", "available", "message"),
    [
        (("avx2", "fma", "amx-tile", "amx-int8"), ("avx2", "fma"), "needs AMX int8, this machine has AVX2 only"),
        (("avx512f", "avx512vnni"), ("avx2", "avx512f"), "needs AVX512 VNNI, this machine has AVX512 only"),
        (("avx2",), (), "needs AVX2, this machine has none of these"),
    ],
)
def test_missing_cpu_features_are_refused_by_name(path, manifest, tensors, features, available, message):
    needy = dataclasses.replace(manifest, target=TargetSpec("x", manifest.target.triple, features))
    write_bundle(path, needy, LIBRARY, tensors)
    with pytest.raises(BundleError) as error:
        read_bundle(path, available=available)
    assert str(error.value) == f"tiny.ahcq: {message}; recompile with --target native or --target generic"
    assert read_bundle(path, available=features).manifest.target.cpu_features == features
    assert read_bundle(path, check_cpu=False).library == LIBRARY


def test_another_architecture_is_refused(path, manifest, tensors):
    write_bundle(path, dataclasses.replace(manifest, target=TargetSpec("x", "riscv64-linux-gnu")), LIBRARY, tensors)
    with pytest.raises(BundleError, match="made for riscv64, this machine is"):
        read_bundle(path)


def test_a_parameter_that_was_not_given_is_refused(tmp_path, manifest, tensors):
    del tensors["decoder.lin.weight"]
    with pytest.raises(BundleError, match=r"decode.*decoder\.lin\.weight"):
        write_bundle(tmp_path / "x.ahcq", manifest, LIBRARY, tensors)


def test_a_failing_disk_leaves_the_old_file_whole(path, manifest, tensors, monkeypatch):
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match="No space left on device; the file that was there is unchanged"):
        write_bundle(path, manifest, LIBRARY * 2, tensors)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


WRITE_BIG = """
import resource, sys, numpy as np
from tvm_ahcq.errors import BundleError
from tvm_ahcq.runtime.bundle import read_bundle, write_bundle
bundle = read_bundle(sys.argv[1])
tensors = dict(bundle.tensors)
"""


def test_a_file_size_limit_hit_while_writing_leaves_the_old_file_whole(path):
    before = path.read_bytes()
    source = (
        WRITE_BIG
        + """
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
tensors["noise"] = np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8)
try:
    write_bundle(sys.argv[1], bundle.manifest, bundle.library, tensors)
except BundleError as error:
    print(error)
"""
    )
    done = subprocess.run([sys.executable, "-c", source, str(path)], capture_output=True, text=True, check=True)
    assert "cannot be written: File too large" in done.stdout
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_writer_killed_half_way_leaves_the_old_file_whole(path):
    before = path.read_bytes()
    source = (
        WRITE_BIG
        + """
import os, signal
class Kill(dict):
    def items(self):
        yield from super().items()
        os.kill(os.getpid(), signal.SIGKILL)
write_bundle(sys.argv[1], bundle.manifest, bundle.library, Kill(tensors))
"""
    )
    done = subprocess.run([sys.executable, "-c", source, str(path)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert path.read_bytes() == before
    assert read_bundle(path).manifest.model.name == "tiny"


def test_a_folder_that_cannot_be_written_is_named(tmp_path, manifest, tensors):
    with pytest.raises(AhcqError, match=r"absent/x\.ahcq: cannot be written: No such file"):
        write_bundle(tmp_path / "absent" / "x.ahcq", manifest, LIBRARY, tensors)


def test_a_symbolic_link_keeps_pointing_at_the_new_file(path, tmp_path, manifest, tensors):
    link = tmp_path / "latest.ahcq"
    link.symlink_to(path)
    write_bundle(link, manifest, b"new library", tensors)
    assert link.is_symlink() and read_bundle(path).library == b"new library"


# ---- several targets

TARGETS = (
    TargetSpec("avx512-vnni", "x86_64-linux-gnu", ("avx2", "avx512vnni"), "vnni16"),
    TargetSpec("avx2", "x86_64-linux-gnu", ("avx2",), "vnni16"),
    TargetSpec("generic", "x86_64-linux-gnu", (), "rows"),
)


@pytest.fixture
def several(tmp_path, manifest, tensors, monkeypatch):
    """A bundle for three targets, on a machine of their architecture."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    path = tmp_path / "several.ahcq"
    libraries = {target.name: f"code for {target.name}".encode() for target in TARGETS}
    write_bundle(path, dataclasses.replace(manifest, target=TARGETS[0], others=TARGETS[1:]), libraries, tensors)
    return path


@pytest.mark.parametrize(
    ("available", "chosen"), [(("avx2", "avx512vnni"), "avx512-vnni"), (("avx2",), "avx2"), ((), "generic")]
)
def test_the_best_target_that_the_machine_supports_is_chosen(several, available, chosen):
    bundle = read_bundle(several, available=available)
    assert bundle.target.name == chosen and bundle.library == f"code for {chosen}".encode()
    assert bundle.manifest.targets == TARGETS and bundle.manifest.format_version == 2


def test_weights_are_stored_once_and_packed_for_the_chosen_target(several):
    names = zipfile.ZipFile(several).namelist()
    assert sum(name.startswith("tensors/") for name in names) == 2
    for target in TARGETS:
        bundle = read_bundle(several, available=("avx2", "avx512vnni"), target=target.name)
        assert bundle.tensors["decoder.lin.weight"].layout == target.layout


def test_a_target_that_is_asked_for_must_be_there_and_run(several):
    with pytest.raises(BundleError, match=r"no library for target 'amx'; it has avx512-vnni, avx2, generic"):
        read_bundle(several, available=(), target="amx")
    with pytest.raises(BundleError, match="needs AVX2, this machine has none of these"):
        read_bundle(several, available=(), target="avx2")


def test_a_machine_that_no_target_fits_is_told_why(several, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(BundleError, match=r"none of its 3 targets runs here \(avx512-vnni: made for x86_64, this"):
        read_bundle(several)


def test_one_target_keeps_the_first_format(tmp_path, manifest, tensors):
    """Readers that know one target only can go on reading."""
    assert write_bundle(tmp_path / "one.ahcq", manifest, b"code", tensors).format_version == 1


def test_libraries_must_be_those_of_the_manifest(tmp_path, manifest, tensors):
    with pytest.raises(BundleError, match="has libraries for generic, amx; its manifest names generic"):
        write_bundle(tmp_path / "x.ahcq", manifest, {"generic": b"", "amx": b""}, tensors)
