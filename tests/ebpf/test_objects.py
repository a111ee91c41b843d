"""Objects in the kernel: linked programs run, maps are read and written, pins outlive who made them."""

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.host.bpf.compiled import read_program
from gateway.host.bpf.errors import AbiMismatchError, BpfError, KernelRefusedError
from gateway.host.bpf.maps import adopt_map, create_map
from gateway.host.bpf.objects import LoadedObject, load_object
from gateway.host.bpf.pins import (
    adopt_program,
    is_bpffs,
    mount_bpffs,
    pin,
    unmount_bpffs,
    unmount_unused,
)
from gateway.host.bpf.spec import MapSpec, MapType, ProgramKind, parse_object
from gateway.host.bpf.syscall import possible_cpus
from tests.ebpf.small_objects import compile_object

FRAME = bytes(64)


@pytest.fixture
def linked() -> Iterator[LoadedObject]:
    with load_object(parse_object(compile_object("linking"))) as loaded:
        yield loaded


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    mount_bpffs(tmp_path / "bpf")
    yield tmp_path / "bpf"
    unmount_bpffs(tmp_path / "bpf")


def number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "little")


def as_number(content: bytes | None) -> int:
    assert content is not None
    return int.from_bytes(content, "little")


def test_subprograms_constants_and_maps_are_linked(linked: LoadedObject) -> None:
    done = linked.programs["first"].test_run(FRAME)

    # scaled(1) is 1 * 2 * 3, scaled(5) is 5 * 2 * 3.
    assert done.verdict == 6
    assert as_number(linked.maps["totals"].lookup(number(1))) == 30
    assert as_number(linked.maps[".bss"].lookup(number(0))) == 1
    assert as_number(linked.maps[".data"].lookup(number(0))) == 0


def test_variables_begin_with_what_the_source_says(linked: LoadedObject) -> None:
    assert as_number(linked.maps[".data"].lookup(number(0))) == 7


def test_kernel_functions_are_linked(linked: LoadedObject) -> None:
    assert linked.programs["second"].test_run(FRAME).verdict == 2
    assert as_number(linked.maps[".bss"].lookup(number(0))) == 10


def test_a_constant_set_before_loading_is_what_the_program_sees() -> None:
    spec = parse_object(compile_object("linking")).with_constants({"factor": number(100)})

    with load_object(spec) as loaded:
        assert loaded.programs["first"].test_run(FRAME).verdict == 200


def test_constants_are_frozen(linked: LoadedObject) -> None:
    with pytest.raises(KernelRefusedError) as refused:
        linked.maps[".rodata"].update(number(0), number(1))

    assert refused.value.code == errno.EPERM


def test_the_verifiers_words_are_in_the_error() -> None:
    with pytest.raises(KernelRefusedError, match="invalid access to packet") as refused:
        load_object(parse_object(compile_object("rejected")))

    assert refused.value.code == errno.EACCES
    assert "R1 offset is outside of the packet" in refused.value.log or "processed" in refused.value.log


@pytest.mark.parametrize(
    ("kept", "outcome"),
    [
        (("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"), "loaded"),
        (("CAP_BPF", "CAP_NET_ADMIN"), "needs CAP_PERFMON"),
        (("CAP_NET_ADMIN", "CAP_PERFMON"), "Operation not permitted"),
    ],
    ids=["all", "without CAP_PERFMON", "without CAP_BPF"],
)
def test_loading_needs_three_capabilities(kept: tuple[str, ...], outcome: str) -> None:
    """CAP_BPF is missed first where maps are made."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD_WITH, *kept], capture_output=True, text=True, check=False, timeout=60
    )

    assert outcome in done.stdout + done.stderr


LOAD_WITH = """
import sys
from gateway.host.bpf.compiled import read_program
from gateway.host.bpf.objects import load_object
from gateway.host.privileges import Capability, keep_only_capabilities

spec = read_program("xdp_inbound")
keep_only_capabilities([Capability[name] for name in sys.argv[1:]])
with load_object(spec):
    print("loaded")
"""


def test_a_kernel_function_that_is_none_is_named() -> None:
    content = compile_object("linking").replace(b"bpf_rcu_read_unlock", b"bpf_rcu_read_unlxxk")

    with pytest.raises(BpfError, match="no function bpf_rcu_read_unlxxk"):
        load_object(parse_object(content))


def test_a_shared_map_is_the_same_map(linked: LoadedObject) -> None:
    spec = parse_object(compile_object("linking"))

    with load_object(spec, shared={"totals": linked.maps["totals"]}) as other:
        other.programs["first"].test_run(FRAME)

    assert as_number(linked.maps["totals"].lookup(number(1))) == 30
    assert as_number(linked.maps[".bss"].lookup(number(0))) == 0


def test_a_shared_map_that_looks_otherwise_is_refused() -> None:
    other = MapSpec(name="totals", map_type=MapType.ARRAY, key_bytes=4, value_bytes=16, max_entries=4)

    with create_map(other) as shared, pytest.raises(AbiMismatchError, match="map totals is shared"):
        load_object(parse_object(compile_object("linking")), shared={"totals": shared})


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.LRU_HASH, MapType.ARRAY])
def test_many_entries_go_in_and_out_in_batches(kind: MapType) -> None:
    entries = {number(key): number(key * 3, 8) for key in range(5000)}
    spec = MapSpec(name="many", map_type=kind, key_bytes=4, value_bytes=8, max_entries=5000)
    if kind is MapType.LRU_HASH:
        spec = MapSpec(name="many", map_type=kind, key_bytes=4, value_bytes=8, max_entries=20000)

    with create_map(spec) as many:
        assert many.update_batch(entries.items()) == 5000
        assert dict(many.items()) == entries
        if kind is not MapType.ARRAY:
            assert many.delete_batch(list(entries)[:4000]) == 4000
            assert dict(many.items()) == dict(list(entries.items())[4000:])


def test_entries_are_set_listed_and_deleted_one_by_one() -> None:
    spec = MapSpec(name="few", map_type=MapType.HASH, key_bytes=4, value_bytes=4, max_entries=2)

    with create_map(spec) as few:
        few.update(number(1), number(10))
        few.update(number(2), number(20))
        with pytest.raises(KernelRefusedError, match="cannot write map few"):
            few.update(number(3), number(30))
        with pytest.raises(KernelRefusedError):
            few.update(number(1), number(11), flags=1)

        assert sorted(few.keys()) == [number(1), number(2)]
        assert (few.delete(number(1)), few.delete(number(1))) == (True, False)
        assert few.lookup(number(1)) is None


def test_keys_and_values_of_another_size_never_reach_the_kernel() -> None:
    spec = MapSpec(name="few", map_type=MapType.HASH, key_bytes=4, value_bytes=4, max_entries=2)

    with create_map(spec) as few:
        with pytest.raises(BpfError, match="a key of map few has 4 bytes, not 5"):
            few.lookup(bytes(5))
        with pytest.raises(BpfError, match="a value of map few has 4 bytes, not 3"):
            few.update(bytes(4), bytes(3))


def test_a_value_of_a_map_for_each_cpu_has_all_of_them() -> None:
    spec = MapSpec(name="each", map_type=MapType.PERCPU_ARRAY, key_bytes=4, value_bytes=4, max_entries=1)

    with create_map(spec) as each:
        each.update(number(0), b"".join(number(cpu + 1, 8) for cpu in range(possible_cpus())))

        values = each.lookup(number(0))
        assert values is not None
        assert len(values) == 8 * possible_cpus()
        assert as_number(values[:8]) == 1
        assert dict(each.items()) == {number(0): values}


def test_what_is_closed_is_not_used_by_mistake() -> None:
    spec = MapSpec(name="gone", map_type=MapType.ARRAY, key_bytes=4, value_bytes=4, max_entries=1)
    gone = create_map(spec)
    gone.close()
    gone.close()

    with pytest.raises(BpfError, match="map gone is closed"):
        gone.lookup(number(0))


# --- pins -------------------------------------------------------------------------------------------


def test_our_bpffs_is_for_its_owner_only(bpffs: Path) -> None:
    assert is_bpffs(bpffs)
    assert bpffs.stat().st_mode & 0o777 == 0o700


def test_mounting_again_keeps_the_pins(bpffs: Path) -> None:
    with create_map(
        MapSpec(name="m", map_type=MapType.ARRAY, key_bytes=4, value_bytes=4, max_entries=1)
    ) as item:
        pin(item, bpffs / "m")

    mount_bpffs(bpffs)

    assert (bpffs / "m").exists()


def test_unmounting_what_is_not_mounted_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BpfError, match="no bpffs is mounted"):
        unmount_bpffs(tmp_path)


def test_a_second_life_adopts_the_maps_of_the_first(bpffs: Path) -> None:
    spec = parse_object(compile_object("linking"))
    with load_object(spec, pinned_in=bpffs) as first:
        first.programs["first"].test_run(FRAME)

    with load_object(spec, pinned_in=bpffs) as second:
        second.programs["first"].test_run(FRAME)

        assert as_number(second.maps["totals"].lookup(number(1))) == 60
    # Constants and variables are of one version, and not pinned.
    pins = [path.name for path in bpffs.iterdir() if path.suffix != ".debug"]  # the kernel's own
    assert pins == ["totals"]


@pytest.mark.parametrize(
    "name", ["xdp_cpumap", "xdp_forward", "xdp_inbound", "xdp_live", "xdp_outbound", "xdp_sink"]
)
def test_every_map_of_our_programs_can_be_adopted(bpffs: Path, name: str) -> None:
    spec = read_program(name)
    with load_object(spec, pinned_in=bpffs) as first:
        made = set(first.maps)

    with load_object(spec, pinned_in=bpffs) as second:
        assert set(second.maps) == made
    pins = {path.name for path in bpffs.iterdir() if path.suffix != ".debug"}
    assert pins == {item.name for item in spec.maps.values() if item.contents is None}


def test_a_pin_of_another_version_is_refused(bpffs: Path) -> None:
    spec = parse_object(compile_object("linking"))
    with load_object(spec, pinned_in=bpffs):
        pass

    with pytest.raises(AbiMismatchError, match="pinned map"):
        load_object(spec.with_entries({"totals": 5}), pinned_in=bpffs)


def test_a_program_is_adopted_from_its_pin(bpffs: Path) -> None:
    with load_object(parse_object(compile_object("linking"))) as loaded:
        pin(loaded.programs["first"], bpffs / "first")

    adopted = adopt_program(bpffs / "first", ProgramKind.XDP)

    assert adopted is not None
    with adopted:
        assert adopted.test_run(FRAME).verdict == 6
    assert adopt_program(bpffs / "absent", ProgramKind.XDP) is None


def test_a_pin_that_is_not_there_is_an_error_with_its_path(bpffs: Path) -> None:
    spec = MapSpec(name="m", map_type=MapType.ARRAY, key_bytes=4, value_bytes=4, max_entries=1)

    with pytest.raises(KernelRefusedError, match="absent"):
        adopt_map(bpffs / "absent", spec)


def test_pinning_outside_of_a_bpffs_is_refused(tmp_path: Path) -> None:
    spec = MapSpec(name="m", map_type=MapType.ARRAY, key_bytes=4, value_bytes=4, max_entries=1)

    with create_map(spec) as item, pytest.raises(KernelRefusedError, match="cannot pin map m"):
        pin(item, tmp_path / "m")


def test_a_bpffs_is_unmounted_only_when_nothing_is_pinned_there(bpffs: Path, linked: LoadedObject) -> None:
    (bpffs / "shared").mkdir()
    pin(linked.maps["totals"], bpffs / "shared" / "totals")

    unmount_unused(bpffs)
    assert is_bpffs(bpffs)
    (bpffs / "shared" / "totals").unlink()
    unmount_unused(bpffs)

    assert not is_bpffs(bpffs)
    unmount_unused(bpffs)
    mount_bpffs(bpffs)
