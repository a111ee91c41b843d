"""Fuzz targets of what operators bring along: configurations of other daemons, rules of a firewall."""

import contextlib
import json
import re
from dataclasses import replace

from gateway.api.config_error import ConfigError
from gateway.api.config_file import parse_config
from gateway.config.foreign.output import to_text, value_of
from gateway.config.foreign.read import Format, import_config
from gateway.config.foreign.statement import ForeignConfigError
from gateway.hardware.doctor import examine
from gateway.hardware.readings import Reading
from tests.fuzz.target import Target, scratch, written
from tests.unit.config.foreign import documented
from tests.unit.config.foreign.test_documented_keywords import CONF_PSK, CONF_SECRETS, SWANCTL_PSK, filled
from tests.unit.hardware.test_doctor import WELL
from tests.unit.hardware.test_firewall import ruleset


def bounded(data):
    """Return the input without paths to files of this machine: some of those never end."""
    return re.sub(rb"/(?=[a-z.~])", b"", data)


def carry(name, written_in):
    """Import, and read what comes out: each refuses with its own error and no other."""
    with contextlib.suppress(ForeignConfigError):
        imported = import_config(scratch() / name, written_in=written_in, addresses={"192.0.2.1"})
        assert all(note.place.line > 0 and note.text for note in imported.notes)
        with contextlib.suppress(ConfigError):
            parse_config(to_text(imported, value_of), "fuzz.yaml", scratch())


def run_swanctl(data):
    written("swanctl.conf", bounded(data))
    carry("swanctl.conf", Format.SWANCTL)


def swanctl_seeds():
    for section, keywords in documented.SWANCTL.items():
        for keyword, value in keywords.items():
            yield filled(SWANCTL_PSK, **{section: f"{keyword} = {value}"}).encode()


def run_ipsec_conf(data):
    """The first byte chooses the dialect; a zero byte ends the configuration and begins the secrets."""
    conf, _, secrets = bounded(data[1:]).partition(b"\0")
    written("ipsec.conf", conf)
    written("ipsec.secrets", secrets)
    carry("ipsec.conf", (Format.STRONGSWAN, Format.LIBRESWAN, None)[data[0] % 3] if data else None)


def ipsec_conf_seeds():
    for number, dialect in enumerate((documented.STRONGSWAN, documented.LIBRESWAN)):
        secrets = (documented.STRONGSWAN_SECRETS, documented.LIBRESWAN_SECRETS)[number]
        end = "\0" + CONF_SECRETS + "".join(f"{entry} {value}\n" for entry, value in secrets.items())
        for section, keywords in dialect.items():
            for keyword, value in keywords.items():
                text = filled(CONF_PSK, **{section: f"{keyword}={value}"})
                yield bytes([number]) + text.encode() + end.encode()


def run_firewall(data):
    """Whatever nft may print, of this version or a later one, findings come of it."""
    told = Reading(source="nft -j list ruleset", text=data.decode("utf-8", "replace"))
    findings = examine(replace(WELL, ruleset=told))
    assert any(finding.check == "firewall" for finding in findings)


def firewall_seeds():
    condition = {
        "match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 500}
    }
    yield json.dumps(ruleset([condition, {"accept": None}], policy="drop")).encode()
    yield json.dumps(ruleset([{"jump": {"target": "c"}}], c=[[condition, {"drop": None}]])).encode()


FOREIGN_TARGETS = (
    Target("swanctl", swanctl_seeds, run_swanctl),
    Target("ipsec_conf", ipsec_conf_seeds, run_ipsec_conf),
    Target("firewall", firewall_seeds, run_firewall),
)
