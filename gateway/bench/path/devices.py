"""What the gateway's interfaces counted, and what their drivers did beside."""

import json
import re
from collections.abc import Iterable
from typing import Final

from gateway.bench.topology import Namespace

_STATISTIC: Final = re.compile(r"^\s*([^:]+): (\d+)$", re.MULTILINE)


def read_counters(namespace: Namespace, devices: Iterable[str]) -> dict[str, int]:
    """Return every counter of some interfaces: those of the kernel, and those of `ethtool -S`.

    Names are `DEVICE.rx.packets` and `DEVICE.NAME`; a driver without statistics has none of the latter.
    """
    found: dict[str, int] = {}
    for device in devices:
        shown = namespace.run("ip", "-json", "-statistics", "link", "show", "dev", device)
        (link,) = json.loads(shown.stdout)
        for way, counters in link["stats64"].items():
            found |= {f"{device}.{way}.{name}": int(value) for name, value in counters.items()}
        statistics = namespace.run("ethtool", "-S", device, check=False).stdout
        found |= {f"{device}.{name}": int(value) for name, value in _STATISTIC.findall(statistics)}
    return found


def counted_between(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """Return what grew, and by how much."""
    return {name: value - before.get(name, 0) for name, value in after.items() if value > before.get(name, 0)}
