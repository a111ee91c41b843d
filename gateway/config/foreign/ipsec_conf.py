"""ipsec.conf(5) with ipsec.secrets(5), of strongSwan and of libreswan, as connections of ours.

A `conn` is a Child SA with all that its IKE SA needs; those that share the latter become one connection with
several children, as both daemons share the IKE SA. Which of left and right is ours, our addresses say.
"""

import re
from collections.abc import Collection
from enum import Enum
from pathlib import Path
from typing import Final

from gateway.config.foreign import (
    conn_libreswan,
    conn_strongswan,
    keywords_libreswan,
    keywords_strongswan,
)
from gateway.config.foreign.authentication import Store, crl_file
from gateway.config.foreign.conf import Conf, ConfSection, read_conf
from gateway.config.foreign.conn import Conn, Context, oriented
from gateway.config.foreign.draft import Draft, Imported, keep_apart, our_name
from gateway.config.foreign.psk import Secrets, read_secrets
from gateway.config.foreign.shunts import SHUNTS, Shunt, adopt_shunts
from gateway.config.foreign.statement import Notes, Setting, Statements

USER_PREFIXES: Final = ("x-", "x_")
"""Of names that no version of libreswan gives a meaning to."""

_LIBRESWAN_VALUES: Final = re.compile(r"[;+]|_(gcm|ccm|ctr|cbc|xcbc)|\bsha2\b|\bdh[0-9]+")


class Dialect(Enum):
    """Whose ipsec.conf it is."""

    STRONGSWAN = "strongswan"
    LIBRESWAN = "libreswan"


_SETUP_CARRIED: Final = {
    Dialect.STRONGSWAN: frozenset({"uniqueids", "strictcrlpolicy"}),
    Dialect.LIBRESWAN: frozenset({"uniqueids", "secretsfile"}),
}


def import_ipsec_conf(
    path: Path,
    *,
    dialect: Dialect | None = None,
    secrets_path: Path | None = None,
    addresses: Collection[str] = (),
    local_side: str = "",
) -> Imported:
    """Read an ipsec.conf with its includes, secrets and the credentials in the directories beside it.

    Args:
        path: The file.
        dialect: None: what its keywords tell.
        secrets_path: None: `ipsec.secrets` beside it, or what libreswan's `secretsfile` says.
        addresses: This machine's, which tell left from right.
        local_side: `left` or `right`, whatever the addresses say.

    Raises:
        ForeignConfigError: It is not of this syntax, or cannot be read.
    """
    notes = Notes()
    conf = read_conf(path, notes)
    dialect = dialect or find_dialect(conf)
    setup = conf.sections.get(("config", "setup"))
    settings = {} if setup is None else conf.effective(setup, notes)
    secrets = Secrets()
    found = secrets_path or _secrets_beside(path, settings)
    if found is not None:
        read_secrets(found, notes, secrets)
    _judge_setup(settings, notes, dialect)
    store = _store(path.parent / "ipsec.d", secrets, conf, notes)
    reader = _Reader(
        Context(notes=notes, secrets=secrets, store=store, setup=settings), dialect, addresses, local_side
    )
    for section in conf.of_kind("conn"):
        reader.conn(section, conf)
    drafts = reader.drafts()
    adopt_shunts(drafts, reader.shunts, reader.left_out, notes)
    keep_apart(drafts, notes)
    secrets.tell_unused(notes, path.parent / "ipsec.d" / "private", store.used)
    return Imported(
        connections=tuple(draft.plain() for draft in drafts),
        notes=tuple(notes),
        left_out=tuple(reader.left_out),
    )


def find_dialect(conf: Conf) -> Dialect:
    """Return whose file it is, by keywords and values that only one of the two has; strongSwan's if none."""
    only = {
        Dialect.STRONGSWAN: _vocabulary(Dialect.STRONGSWAN) - _vocabulary(Dialect.LIBRESWAN),
        Dialect.LIBRESWAN: _vocabulary(Dialect.LIBRESWAN) - _vocabulary(Dialect.STRONGSWAN),
    }
    votes = dict.fromkeys(Dialect, 0)
    for (kind, _), section in conf.sections.items():
        votes[Dialect.STRONGSWAN] += kind == "ca"
        votes[Dialect.LIBRESWAN] += any(also.keyword == "alsoflip" for also in section.also)
        for keyword, setting in section.settings.items():
            word = re.sub(r"^(left|right)(?=.)", "side", keyword)
            for dialect, words in only.items():
                votes[dialect] += word in words
            if keyword in ("ike", "esp", "ah"):
                votes[Dialect.LIBRESWAN] += bool(_LIBRESWAN_VALUES.search(setting.value.lower()))
    return max(votes, key=lambda dialect: votes[dialect])


def _vocabulary(dialect: Dialect) -> frozenset[str]:
    if dialect is Dialect.STRONGSWAN:
        tables = (keywords_strongswan.CONN, keywords_strongswan.SETUP)
        carried = {"forceencaps", "dpdaction", "closeaction", "replay_window", "margintime", "lifetime"}
        sides = {*keywords_strongswan.REMOTE, "sigkey"}
    else:
        tables = (keywords_libreswan.CONN, keywords_libreswan.SETUP)
        carried = {"ikev2", "phase2", "phase2alg", "salifetime", "esn", "pfs", "encapsulation", "nic-offload"}
        carried |= {
            "replay-window",
            "retransmit-interval",
            "retransmit-timeout",
            "ipsec-max-bytes",
            "secretsfile",
        }
        sides = {*keywords_libreswan.SIDE, "subnets"}
    words = {word for table in tables for word in table}
    return frozenset({*words, *carried, *(f"side{word}" for word in sides)})


def _secrets_beside(path: Path, setup: dict[str, Setting]) -> Path | None:
    """Return the secrets file; none where there is none."""
    if named := setup.get("secretsfile"):
        return path.parent / named.value
    beside = (path.with_name("ipsec.secrets"), path.with_suffix(".secrets"))
    return next((found for found in beside if found.exists()), None)


def _judge_setup(settings: dict[str, Setting], notes: Notes, dialect: Dialect) -> None:
    table = keywords_strongswan.SETUP if dialect is Dialect.STRONGSWAN else keywords_libreswan.SETUP
    left = {key: setting for key, setting in settings.items() if key not in _SETUP_CARRIED[dialect]}
    for setting in left.values():
        Statements({setting.keyword: setting}, notes, place=setting.place).judge(table)


def _store(folder: Path, secrets: Secrets, conf: Conf, notes: Notes) -> Store:
    """Return the directories of strongSwan's ipsec.d, with what `ca` sections add."""
    store = Store(
        certificates=folder / "certs",
        authorities=folder / "cacerts",
        crls=folder / "crls",
        public_keys=folder / "certs",
        keys=[(folder / "private" / key.file, key.passphrase) for key in secrets.keys],
    )
    for section in conf.of_kind("ca"):
        said = Statements(conf.effective(section, notes), notes, place=section.place)
        is_loaded = (auto := said.take("auto")) is not None and auto.value.lower() == "add"
        setting = said.take("cacert")
        if setting is not None and is_loaded:
            store.more_authorities.append(store.authorities / setting.value)
        elif setting is not None:
            said.lose(setting, "is not loaded there either: auto is ignore")
        elif auto is not None:
            said.lose(auto, "loads nothing without cacert")
        for keyword in ("crluri", "crluri1", "crluri2"):
            if setting := said.take(keyword):
                file = crl_file(setting.value)
                if file is None:
                    said.lose(setting, keywords_strongswan.FETCH_REASON)
                else:
                    store.more_crls.append(file)
        said.judge(keywords_strongswan.CA)
    return store


class _Reader:
    """Reads conns one after the other; what they make is gathered here."""

    def __init__(
        self, context: Context, dialect: Dialect, addresses: Collection[str], local_side: str
    ) -> None:
        self.shunts: list[Shunt] = []
        self.left_out: list[str] = []
        self._conns: list[Conn] = []
        self._context = context
        self._dialect = dialect
        self._addresses = addresses
        self._local_side = local_side

    def conn(self, section: ConfSection, conf: Conf) -> None:
        """Read one conn; one that is not loaded there is left out, and told unless others inherit it."""
        notes = self._context.notes
        settings = conf.effective(section, notes)
        auto = settings.get("auto")
        if auto is None or auto.value.lower() in ("", "ignore"):
            if section.name not in conf.templates("conn"):
                place = section.place if auto is None else auto.place
                notes.add(place, section.name, "is not loaded there either: auto is ignore")
                self.left_out.append(section.name)
            return
        sides, why = oriented(self._renamed(settings), self._addresses, self._local_side)
        if why:
            notes.add(section.place, section.name, why)
        said = Statements(sides, notes, place=section.place)
        read = conn_strongswan if self._dialect is Dialect.STRONGSWAN else conn_libreswan
        conn = read.read_conn(section.name, said, self._context)
        if conn is None:
            self.left_out.append(section.name)
        elif all(child.get("action") in SHUNTS for child in conn.children):
            self.shunts += [Shunt(section.name, section.place, child) for child in conn.children]
        else:
            self._conns.append(conn)

    def _renamed(self, settings: dict[str, Setting]) -> dict[str, Setting]:
        """Return settings by the words they are looked up by; extensions of users are told."""
        found: dict[str, Setting] = {}
        for keyword, setting in settings.items():
            if keyword.startswith(USER_PREFIXES):
                self._context.notes.add(setting.place, keyword, "has a meaning to its author alone")
            elif self._dialect is Dialect.LIBRESWAN:
                found[conn_libreswan.renamed(keyword)] = setting
            else:
                found[conn_strongswan.ALIASES.get(keyword, keyword)] = setting
        return found

    def drafts(self) -> list[Draft]:
        """Return connections: conns with the same IKE SA are children of one."""
        drafts: list[Draft] = []
        for conn in self._conns:
            host = next((draft for draft in drafts if _shares_ike_sa(draft, conn)), None)
            if host is None:
                name = our_name(conn.name, (draft.name for draft in drafts))
                host = Draft(
                    name=name, place=conn.place, local=conn.here, remote=conn.there, ike=conn.ike, children=[]
                )
                drafts.append(host)
            else:
                text = f"shares the IKE SA of {host.name}: carried as a child of that connection"
                self._context.notes.add(conn.place, conn.name, text)
            host.allow_weak += [word for word in conn.weak if word not in host.allow_weak]
            for child in conn.children:
                child["name"] = our_name(child["name"], (other["name"] for other in host.children))
                host.children.append(child)
        return drafts


def _shares_ike_sa(draft: Draft, conn: Conn) -> bool:
    return (draft.local, draft.remote, draft.ike) == (conn.here, conn.there, conn.ike)
