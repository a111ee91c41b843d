"""Records and the structs they become; the ABI against BTF."""

import dataclasses
from ipaddress import ip_address

import pytest

from gateway.host.bpf.abi import SAS, TABLES, InboundSa, NextHop, Spi, check_abi
from gateway.host.bpf.compiled import read_program
from gateway.host.bpf.errors import AbiMismatchError
from gateway.host.bpf.layout import U16, U32, Layout

PROGRAMS = ("xdp_cpumap", "xdp_forward", "xdp_inbound", "xdp_one_arm", "xdp_outbound")


def test_a_record_becomes_a_struct_and_comes_back() -> None:
    sa = InboundSa(destination=ip_address("192.0.2.1"), protocol=50, owner=1)

    content = SAS.value.encode(sa)

    assert content.hex() == "00000000000000000000ffffc0000201" + "32000000" + "01000000"
    assert SAS.value.decode(content) == sa
    assert SAS.key.encode(Spi(0x01020304)).hex() == "01020304"


def test_a_number_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(OverflowError):
        SAS.key.encode(Spi(1 << 32))


@pytest.mark.parametrize("program", PROGRAMS)
def test_records_are_laid_out_as_in_c(program: str) -> None:
    check_abi(read_program(program))


def test_every_table_is_in_some_program() -> None:
    maps = {name for program in PROGRAMS for name in read_program(program).maps}

    assert {table.name for table in TABLES} <= maps


def test_a_field_at_another_place_is_noticed() -> None:
    spec = read_program("xdp_forward")
    wrong = Layout("gw_next_hop", NextHop, (("mtu", U32), ("ifindex", U32), ("vlan_id", U16)))

    with pytest.raises(AbiMismatchError, match="gw_next_hop has fields"):
        wrong.check(spec.btf, spec.maps["gw_next_hops4"].value_type, "it")


def test_another_struct_is_noticed() -> None:
    spec = read_program("xdp_forward")

    with pytest.raises(AbiMismatchError, match="is STRUCT gw_spd_leaf in C, we want gw_inbound_sa"):
        SAS.value.check(spec.btf, spec.maps["gw_spd_local4"].value_type, "it")


def test_ends_of_programs_that_are_numbered_otherwise_are_noticed() -> None:
    spec = read_program("xdp_inbound")
    renamed = tuple(
        dataclasses.replace(
            item,
            members=tuple(
                dataclasses.replace(member, name="GW_EXIT_NOVEL") if member.name == "GW_EXIT_IKE" else member
                for member in item.members
            ),
        )
        for item in spec.btf.types
    )

    with pytest.raises(AbiMismatchError, match="GW_EXIT_NOVEL"):
        check_abi(dataclasses.replace(spec, btf=dataclasses.replace(spec.btf, types=renamed)))
