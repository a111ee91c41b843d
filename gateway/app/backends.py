"""The agent's datapath: one backend by name, or every one that can run here, behind one dispatcher."""

from dataclasses import replace
from functools import partial
from typing import Final

from gateway.agent.dispatcher import Candidate, Dispatcher
from gateway.agent.nic_survey import NicSurvey
from gateway.datapath.ability import Closed
from gateway.datapath.backend import StartedDatapath
from gateway.datapath.engine.probe import probe_espd
from gateway.datapath.registry import AUTO, AUTOMATIC, ENGINES, BackendOptions, make_backend
from gateway.hardware.facts import Answer
from gateway.hardware.profiles import load_profiles
from gateway.host.privileges import AGENT_CAPABILITIES, ESPD_CAPABILITIES, Capability
from gateway.ipsec.placement import Engine, PlacementReason

_NOT_YET: Final = "this version has no backend that drives it"


def make_datapath(name: str, options: BackendOptions) -> Dispatcher:
    """Return a datapath that is not started yet.

    Args:
        name: Of a backend, which then has to run here; or `auto`, for every one that can.
        options: The same for each; the UDP sockets are only for the first that runs.
    """
    names = AUTOMATIC if name == AUTO else (name,)
    driven = {engine for chosen in names for engine in ENGINES[chosen]}
    elsewhere = {engine: backend for backend, engines in ENGINES.items() for engine in engines}
    absent = {
        engine: Closed(
            reason=PlacementReason.NO_BACKEND,
            text=_why_absent(name, elsewhere.get(engine)),
        )
        for engine in Engine
        if engine not in driven
    }
    survey = NicSurvey(load_profiles())
    return Dispatcher(
        [
            Candidate(name=chosen, make=partial(_make, chosen, options), engines=ENGINES[chosen])
            for chosen in names
        ],
        survey.look,
        absent=absent,
        need_all=name != AUTO,
        on_close=survey.close,
    )


def capabilities_of(name: str) -> tuple[Capability, ...]:
    """Return what an agent with this backend, or these, needs to be allowed.

    `auto` keeps what espd needs only where there is an espd.
    """
    starts_espd = name == "engine" or (name == AUTO and probe_espd().answer is Answer.YES)
    return ESPD_CAPABILITIES if starts_espd else AGENT_CAPABILITIES


def _why_absent(name: str, driver: str | None) -> str:
    """Say why a backend that drives an engine is not there, if there is one."""
    if driver is None:
        return _NOT_YET
    return f"the agent runs the {name} backend alone, {driver} drives it"


def _make(name: str, options: BackendOptions, is_first: bool) -> StartedDatapath:
    return make_backend(name, options if is_first else replace(options, esp_sockets=(), is_alone=False))
