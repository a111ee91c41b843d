"""Reading compiled objects: what is found in them, and what is refused by name. No kernel is touched."""

import pytest

from gateway.host.bpf.btf import find_function_id, parse_btf
from gateway.host.bpf.errors import ObjectFormatError
from gateway.host.bpf.link import INSTRUCTION, Target
from gateway.host.bpf.spec import MapType, ObjectSpec, ProgramKind, parse_object
from tests.ebpf.small_objects import compile_object


@pytest.fixture(scope="module")
def spec() -> ObjectSpec:
    return parse_object(compile_object("linking"))


def test_the_same_object_gives_the_same_spec(spec: ObjectSpec) -> None:
    assert parse_object(compile_object("linking")) == spec


def test_maps_are_read_from_btf_and_from_sections_of_data(spec: ObjectSpec) -> None:
    found = {
        name: (item.map_type, item.key_bytes, item.value_bytes, item.max_entries, item.is_constant)
        for name, item in spec.maps.items()
    }

    assert found == {
        "totals": (MapType.ARRAY, 4, 8, 4, False),
        ".rodata": (MapType.ARRAY, 4, 4, 1, True),
        ".data": (MapType.ARRAY, 4, 8, 1, False),
        ".bss": (MapType.ARRAY, 4, 8, 1, False),
    }
    assert spec.maps[".data"].contents == (7).to_bytes(8, "little")
    assert spec.maps[".bss"].contents == bytes(8)


def test_programs_have_the_kind_of_their_section(spec: ObjectSpec) -> None:
    assert {name: item.kind for name, item in spec.programs.items()} == {
        "first": ProgramKind.XDP,
        "second": ProgramKind.XDP_FRAGS,
    }
    assert spec.licence == "GPL"


def test_every_call_of_a_subprogram_leads_to_its_beginning(spec: ObjectSpec) -> None:
    code = spec.programs["first"].code.instructions
    decoded = list(INSTRUCTION.iter_unpack(code))
    exits = [at for at, (opcode, *_) in enumerate(decoded) if opcode == 0x95]

    targets = {
        at + 1 + immediate
        for at, (opcode, registers, _, immediate) in enumerate(decoded)
        if opcode == 0x85 and registers >> 4 == 1
    }

    # `scaled` and `twice` begin behind the end of the function before.
    assert targets == {at + 1 for at in exits[:-1]}
    assert len(targets) == 2


def test_references_name_what_the_kernel_must_number(spec: ObjectSpec) -> None:
    def named(program: str) -> set[tuple[Target, str, int]]:
        return {(item.target, item.name, item.offset) for item in spec.programs[program].code.references}

    assert named("first") == {
        (Target.MAP, "totals", 0),
        (Target.MAP_VALUE, ".bss", 0),
        (Target.MAP_VALUE, ".data", 0),
        (Target.MAP_VALUE, ".rodata", 0),
    }
    assert named("second") == {
        (Target.KERNEL_FUNCTION, "bpf_rcu_read_lock", 0),
        (Target.KERNEL_FUNCTION, "bpf_rcu_read_unlock", 0),
        (Target.MAP_VALUE, ".bss", 0),
    }


def test_constants_are_set_by_name(spec: ObjectSpec) -> None:
    changed = spec.with_constants({"factor": (9).to_bytes(4, "little")})

    assert changed.maps[".rodata"].contents == (9).to_bytes(4, "little")
    assert spec.maps[".rodata"].contents == (3).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("factor", bytes(8), "has 4 bytes, not 8"),
        ("runs", bytes(8), "no constant 'runs'"),
        ("absent", bytes(4), "no constant 'absent'"),
    ],
)
def test_a_constant_that_is_none_is_refused(spec: ObjectSpec, name: str, value: bytes, message: str) -> None:
    with pytest.raises(ObjectFormatError, match=message):
        spec.with_constants({name: value})


def test_maps_are_resized_by_name(spec: ObjectSpec) -> None:
    assert spec.with_entries({"totals": 9}).maps["totals"].max_entries == 9
    with pytest.raises(ObjectFormatError, match="no map 'absent'"):
        spec.with_entries({"absent": 1})


def test_core_relocations_are_refused_loudly() -> None:
    with pytest.raises(ObjectFormatError, match="CO-RE relocations"):
        parse_object(compile_object("core_relocation"))


def test_an_attribute_of_a_map_that_is_not_known_is_refused() -> None:
    with pytest.raises(ObjectFormatError, match="map 'pinned' has the attribute 'pinning'"):
        parse_object(compile_object("strange_map"))


def test_an_object_for_another_machine_is_refused() -> None:
    content = bytearray(compile_object("linking"))
    content[18] = 62  # EM_X86_64

    with pytest.raises(ObjectFormatError, match="EM_X86_64"):
        parse_object(bytes(content))


@pytest.mark.parametrize("length", range(0, 4096, 61))
def test_a_truncated_object_is_refused_as_malformed(length: int) -> None:
    content = compile_object("linking")

    with pytest.raises(ObjectFormatError):
        parse_object(content[: min(length, len(content) - 64)])


def test_btf_says_what_is_in_an_enum_and_a_struct() -> None:
    spec = parse_object(compile_object("linking"))

    context = spec.btf.struct("xdp_md")

    assert context is not None
    assert [(member.name, member.offset) for member in context.members] == [
        ("data", 0),
        ("data_end", 4),
        ("data_meta", 8),
        ("ingress_ifindex", 12),
        ("rx_queue_index", 16),
        ("egress_ifindex", 20),
    ]
    assert spec.btf.enum("absent") is None


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (b"", "no header"),
        (bytes(24), "magic 0x0000"),
        (b"\x9f\xeb\x01\x00" + b"\x18\0\0\0" + b"\0\0\0\0\xff\0\0\0" + b"\xff\0\0\0\x01\0\0\0", "shorter"),
        (
            b"\x9f\xeb\x01\x00\x18\0\0\0"
            + b"\0\0\0\0\x0c\0\0\0"
            + b"\x0c\0\0\0\x01\0\0\0"
            + b"\0\0\0\0\0\0\0\x1f\0\0\0\0\0",
            "malformed BTF type",
        ),
    ],
    ids=["empty", "magic", "short", "kind"],
)
def test_malformed_btf_is_refused(section: bytes, message: str) -> None:
    with pytest.raises(ObjectFormatError, match=message):
        parse_btf(section)


def test_a_function_is_found_in_btf_by_its_name() -> None:
    """The id counts the types before it, from 1."""
    strings = b"\0int\0wanted\0"
    integer = (
        (1).to_bytes(4, "little") + (1 << 24).to_bytes(4, "little") + (4).to_bytes(4, "little") + bytes(4)
    )
    function = (5).to_bytes(4, "little") + (12 << 24).to_bytes(4, "little") + (1).to_bytes(4, "little")
    header = b"\x9f\xeb\x01\x00" + b"".join(
        number.to_bytes(4, "little")
        for number in (24, 0, len(integer + function), len(integer + function), len(strings))
    )

    section = header + integer + function + strings

    assert find_function_id(section, "wanted") == 2
    assert find_function_id(section, "int") is None
