"""What an agent that runs says of its packets, for `ipsecgw hw`: by which method each device carries them."""

import asyncio
from typing import Final

from gateway.api.address import Address, UnixAddress
from gateway.api.datapath_client import DatapathClient
from gateway.datapath.backend import DatapathError
from gateway.hardware.facts import Answer, Fact

NAME: Final = "carries packets now"
_DEADLINE_S: Final = 5.0


def ask_agent(address: Address) -> tuple[Fact, ...]:
    """Return a fact for each device of the engine's, or why there is none."""
    if isinstance(address, UnixAddress) and not address.path.exists():
        return (_unknown(f"no agent at {address}: each device is probed when one starts"),)
    try:
        name, methods = asyncio.run(_ask(address))
    except DatapathError as error:
        return (_unknown(f"the agent at {address}: {error}"),)
    if not methods:
        evidence = f"the agent at {address} runs {name}: the kernel or a NIC carries them"
        return (Fact(name=NAME, answer=Answer.NO, evidence=evidence),)
    return tuple(
        Fact(name=NAME, answer=Answer.YES, value=line, evidence=f"the agent at {address}") for line in methods
    )


def _unknown(evidence: str) -> Fact:
    return Fact(name=NAME, answer=Answer.UNKNOWN, evidence=evidence)


async def _ask(address: Address) -> tuple[str, tuple[str, ...]]:
    client = DatapathClient(address, deadline_s=_DEADLINE_S)
    try:
        capabilities = await client.capabilities()
    finally:
        await client.close()
    return capabilities.name, capabilities.io_methods
