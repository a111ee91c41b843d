"""swanctl.conf(5) of strongSwan as connections of ours.

Where the file says nothing our own default applies, but where the peer would notice: see docs/migration.md.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.config.foreign import carry
from gateway.config.foreign import keywords_swanctl as keywords
from gateway.config.foreign.authentication import BESIDE_PSK, Method, Store, crl_file, method
from gateway.config.foreign.draft import Draft, Imported, Plain, keep_apart, our_name, without_defaults
from gateway.config.foreign.lifetimes import child_lifetimes, duration, fraction, read_limits
from gateway.config.foreign.marks import marks, per_cpu_sas
from gateway.config.foreign.proposals import strongswan
from gateway.config.foreign.psk import KeyFile, PresharedKey, Secrets, our_text
from gateway.config.foreign.route_based import by_if_id
from gateway.config.foreign.sections import Section, read_sections
from gateway.config.foreign.shunts import SHUNTS, Shunt, adopt_shunts
from gateway.config.foreign.statement import Notes, Statements
from gateway.config.foreign.values import count, identity, seconds
from gateway.ipsec.proposal import ProtocolId

_KEY_FOLDERS: Final = {"private": "private", "rsa": "rsa", "ecdsa": "ecdsa", "pkcs8": "pkcs8"}
"""The prefix of a section in `secrets`, and the directory its files are in."""

_UNIQUE: Final = {"no": "allow", "never": "never", "keep": "reject", "replace": "replace", "yes": "replace"}
_FRAGMENTATION: Final = {"yes": "yes", "no": "no", "accept": "yes", "force": "yes"}
_CHILDLESS: Final = {"allow": "allow", "force": "force", "never": "never", "prefer": "allow"}
_REVOCATION: Final = {"strict": "strict", "ifuri": "ifuri", "relaxed": "relaxed"}
_MODES: Final = {
    "tunnel": "tunnel",
    "transport": "transport",
    "pass": "bypass",
    "pass_out": "bypass",
    "drop": "discard",
}
_START: Final = {
    "none": "none",
    "trap": "on_traffic",
    "start": "start",
    "trap|start": "start",
    "start|trap": "start",
}
_LOSS: Final = {
    "none": "clear",
    "clear": "clear",
    "trap": "trap",
    "hold": "trap",
    "start": "restart",
    "restart": "restart",
}
_LIMITS: Final = (("time", seconds), ("bytes", count), ("packets", count))
_REKEY_S: Final = 14400.0
"""When an IKE SA is rekeyed where nothing is said, in swanctl.conf(5) as here."""
_COPIES_DSCP_OUT: Final = {"out": "true", "yes": "true", "no": "", "in": ""}


def import_swanctl(path: Path) -> Imported:
    """Read a swanctl.conf, with its includes and the credentials in the directories beside it.

    Raises:
        ForeignConfigError: It is not of this syntax, or cannot be read.
    """
    notes = Notes()
    root = read_sections(path, notes)
    _tell_strays(root, notes)
    secrets = _read_secrets(root.section("secrets"), path.parent, notes)
    reader = _Reader(notes, secrets, _store(path.parent, secrets, root.section("authorities"), notes))
    for pool in root.section("pools").sections.values():
        notes.add(pool.place, f"pools.{pool.name}", keywords.POOL_REASON)
        for setting in pool.settings.values():
            notes.add(setting.place, setting.keyword, keywords.POOL_REASON)
    for section in root.section("connections").sections.values():
        reader.connection(section)
    adopt_shunts(reader.drafts, reader.shunts, reader.left_out, notes)
    keep_apart(reader.drafts, notes)
    secrets.tell_unused(notes, path.parent, reader.store.used)
    return Imported(
        connections=tuple(draft.plain() for draft in reader.drafts),
        notes=tuple(notes),
        left_out=tuple(reader.left_out),
    )


def _tell_strays(root: Section, notes: Notes) -> None:
    """Note what stands where nothing is expected."""
    for setting in root.settings.values():
        notes.add(setting.place, setting.keyword, "is in no section")
    for section in root.sections.values():
        reason = keywords.SECTION_REASONS.get(section.name)
        if reason is None:
            notes.add(section.place, section.name, "is no section of swanctl.conf")
            continue
        for setting in section.settings.values():
            notes.add(setting.place, setting.keyword, f"{section.name} {reason}")


# --- secrets ------------------------------------------------------------------------------------


def _read_secrets(section: Section, directory: Path, notes: Notes) -> Secrets:
    secrets = Secrets()
    for below in section.sections.values():
        prefix = next(
            (
                name
                for name in ("ike", *_KEY_FOLDERS, *keywords.SECRET_REASONS)
                if below.name.startswith(name)
            ),
            "",
        )
        if prefix == "ike":
            _read_psk(below, notes, secrets)
        elif prefix in _KEY_FOLDERS:
            _read_passphrase(below, directory / _KEY_FOLDERS[prefix], notes, secrets)
        else:
            reason = keywords.SECRET_REASONS.get(prefix, "is no kind of secret")
            notes.add(below.place, below.name, reason)
            for setting in below.settings.values():
                notes.add(setting.place, setting.keyword, reason)
    return secrets


def _read_psk(section: Section, notes: Notes, secrets: Secrets) -> None:
    ids = []
    for keyword, setting in section.settings.items():
        if keyword == "secret":
            continue
        if not keyword.startswith("id"):
            notes.add(setting.place, keyword, "is not a documented keyword here; is it misspelt?")
            continue
        try:
            ids.append(identity(setting.value))
        except ValueError as error:
            notes.add(setting.place, keyword, f"{error}; the secret is for nobody then")
            return
    secret = section.settings.get("secret")
    if secret is None:
        notes.add(section.place, section.name, "has no secret")
        return
    key = our_text(secret.value.encode("utf-8", "surrogateescape"), is_literal=False)
    secrets.psks.append(PresharedKey(tuple(ids), key, secret.place))


def _read_passphrase(section: Section, folder: Path, notes: Notes, secrets: Secrets) -> None:
    statements = Statements(section.settings, notes, place=section.place)
    file, secret = statements.take("file"), statements.take("secret")
    statements.judge({})
    if file is None:
        notes.add(section.place, section.name, "has no file")
        return
    passphrase = None if secret is None else our_text(secret.value.encode(), is_literal=False)
    secrets.keys.append(KeyFile(str(folder / file.value), passphrase, file.place))


def _store(directory: Path, secrets: Secrets, authorities: Section, notes: Notes) -> Store:
    """Return the directories of swanctl(8) beside the file, with what `authorities` adds."""
    passphrases = {key.file: key.passphrase for key in secrets.keys}
    keys = [
        (path, passphrases.get(str(path)))
        for folder in _KEY_FOLDERS.values()
        for path in sorted((directory / folder).glob("*"))
        if path.is_file()
    ]
    store = Store(
        certificates=directory / "x509",
        authorities=directory / "x509ca",
        crls=directory / "x509crl",
        public_keys=directory / "pubkey",
        keys=keys,
    )
    for section in authorities.sections.values():
        statements = Statements(section.settings, notes, place=section.place)
        if setting := statements.take_first("cacert", "file"):
            store.more_authorities.append(store.authorities / setting.value)
        if setting := statements.take("crl_uris"):
            store.more_crls += [path for uri in setting.items if (path := crl_file(uri))]
            if not all(crl_file(uri) for uri in setting.items):
                statements.lose(setting, keywords.FETCH_REASON)
        statements.judge(keywords.AUTHORITY)
    return store


# --- connections --------------------------------------------------------------------------------


class _Reader:
    """Reads connections one after the other; what they make is gathered here."""

    def __init__(self, notes: Notes, secrets: Secrets, store: Store) -> None:
        self.drafts: list[Draft] = []
        self.shunts: list[Shunt] = []
        self.left_out: list[str] = []
        self._notes = notes
        self._secrets = secrets
        self.store = store

    def connection(self, section: Section) -> None:
        """Read one connection."""
        said = Statements(section.settings, self._notes, place=section.place)
        weak: list[str] = []
        if (version := said.take("version")) and version.value not in ("0", "2"):
            said.leave_out(version, "is IKEv1, which is not spoken here")
        for keyword in ("local_port", "remote_port"):
            if (port := said.take(keyword)) and port.value != "500":
                said.leave_out(port, "IKE begins at port 500 here")
        local = carry.outer_addresses(said, "local_addrs", is_local=True)
        remote = carry.outer_addresses(said, "remote_addrs", is_local=False)
        ike = _ike(said, weak)
        interface = [said.take(keyword) for keyword in ("if_id_in", "if_id_out")]
        said.judge(keywords.CONNECTION)
        children = list(self._children(section, said, local, remote, weak))
        if not children:
            for setting in filter(None, interface):
                said.lose(setting, "is of no use without a child")
        if children and all(child.get("action") in SHUNTS for child in children):
            for name, below in section.sections.items():
                if name != "children":
                    self._notes.add(below.place, name, "is of no use to exceptions, which have no peer")
            self.shunts += [
                Shunt(f"{section.name}-{child['name']}", section.place, child) for child in children
            ]
            return
        if not children and ike.get("childless") != "force":
            said.leave_out_whole(section.name, "has no child that could be carried")
        here, there = self._sides(section, said, local, remote)
        if said.is_left_out:
            self.left_out.append(section.name)
            return
        name = our_name(section.name, (draft.name for draft in self.drafts))
        self.drafts.append(
            Draft(
                name=name,
                place=section.place,
                local=here,
                remote=there,
                ike=ike,
                children=children,
                allow_weak=weak,
            )
        )

    def _sides(
        self, section: Section, said: Statements, local: list[str], remote: list[str]
    ) -> tuple[dict[str, Plain], dict[str, Plain]]:
        """Return both ends with how they prove who they are; what is wrong leaves the connection out."""
        rounds: dict[str, list[Section]] = {"local": [], "remote": []}
        for name, below in section.sections.items():
            kind = next((kind for kind in rounds if name.startswith(kind)), "")
            if kind:
                rounds[kind].append(below)
            elif name != "children":
                self._notes.add(below.place, name, "is no section of a connection")
        for kind, found in rounds.items():
            if len(found) > 1:
                said.leave_out_whole(kind, "has several rounds of authentication (RFC 4739)")
        here = self._local((rounds["local"] or [Section("local", section.place)])[0], said, local)
        there = self._remote((rounds["remote"] or [Section("remote", section.place)])[0], said, remote)
        if not said.is_left_out:
            carry.give_psk(said, self._secrets, here, there)
        return here, there

    def _local(self, section: Section, said: Statements, places: list[str]) -> dict[str, Plain]:
        below = Statements(section.settings, self._notes, place=section.place)
        wish, name = _method(below), _identity(below)
        certs, pubkeys = (
            self._files(section, below, "cert", is_psk=wish.is_psk),
            carry.items(below, "pubkeys"),
        )
        if wish.is_psk:
            below.of_no_use(("certs", "pubkeys"), BESIDE_PSK)
        below.judge(keywords.LOCAL)
        auth: dict[str, Plain] | None = None
        try:
            auth = None if wish.is_psk else self.store.own(certs, pubkeys, wish)
        except ValueError as error:
            below.leave_out_whole(section.name, str(error))
        said.is_left_out |= below.is_left_out
        return carry.side(places, name, auth)

    def _remote(self, section: Section, said: Statements, places: list[str]) -> dict[str, Plain]:
        below = Statements(section.settings, self._notes, place=section.place)
        wish, name = _method(below), _identity(below)
        certs = self._files(section, below, "cert", is_psk=False)
        cas = self._files(section, below, "cacert", is_psk=wish.is_psk and not certs)
        pubkeys = carry.items(below, "pubkeys")
        policy, said_policy = below.word("revocation", _REVOCATION) or "relaxed", below.take("revocation")
        if wish.is_psk and not certs and not pubkeys:
            below.of_no_use(("cacerts", "revocation"), BESIDE_PSK)
        elif certs or pubkeys:
            below.of_no_use(("cacerts",), "is of no use where the very key of the peer is named")
        below.judge(keywords.REMOTE)
        if certs and said_policy is not None and policy != "relaxed":
            below.leave_out(said_policy, "cannot be demanded of a certificate that is named itself")
        auth: dict[str, Plain] | None = None
        try:
            if certs:
                auth = self.store.known(certs, self.store.certificates, wish)
            elif pubkeys:
                auth = self.store.known(pubkeys, self.store.public_keys, wish)
            elif not wish.is_psk:
                auth = self.store.believed(cas, wish, policy)
        except ValueError as error:
            below.leave_out_whole(section.name, str(error))
        said.is_left_out |= below.is_left_out
        return carry.side(places, name, auth)

    def _files(self, section: Section, below: Statements, prefix: str, *, is_psk: bool) -> list[str]:
        """Return the files of `certs` or `cacerts`, and of the sections `cert...` or `cacert...`."""
        found = carry.items(below, f"{prefix}s")
        for name, inner in section.sections.items():
            if not name.startswith(prefix):
                continue
            statements = Statements(inner.settings, self._notes, place=inner.place)
            if file := statements.take("file"):
                found.append(file.value)
                if is_psk:
                    statements.lose(file, BESIDE_PSK)
            statements.judge(keywords.CERTIFICATE)
            below.is_left_out |= statements.is_left_out
        return found

    def _children(
        self,
        section: Section,
        around: Statements,
        local: list[str],
        remote: list[str],
        weak: list[str],
    ) -> Iterator[dict[str, Plain]]:
        names: list[str] = []
        for name, below in section.section("children").sections.items():
            said = Statements(below.settings, self._notes, place=below.place)
            names.append(our_name(name, names))
            child = _child(said, names[-1], local, remote, around=around, weak=weak)
            if said.is_left_out:
                self.left_out.append(f"{section.name}/{name}")
            else:
                yield child


def _method(below: Statements) -> Method:
    wish = carry.read(below, "auth", method, or_leave_out=True)
    return method("pubkey") if wish is None else wish


def _identity(below: Statements) -> str | None:
    name = carry.read(below, "id", identity, or_leave_out=True)
    return None if name == "%any" else name


def _ike(said: Statements, weak: list[str]) -> dict[str, Plain]:
    if (wanted := said.take("fragmentation")) and wanted.value in ("accept", "force"):
        said.lose(wanted, "is carried as yes: offered, and used where a message is large")
    reauth, rekey = carry.read(said, "reauth_time", seconds), carry.read(said, "rekey_time", seconds)
    over, rand = carry.read(said, "over_time", seconds), carry.read(said, "rand_time", seconds)
    if reauth and rekey is None:
        rekey = 0.0  # As in strongSwan: authenticated anew instead of rekeyed.
    longest = max(reauth or 0.0, rekey or 0.0)
    if rand is not None and not longest:
        longest = _REKEY_S
    return without_defaults(
        {
            "proposals": _proposals(said, "proposals", ProtocolId.IKE, weak),
            "rekey": duration(rekey),
            "over_time": duration(over),
            "jitter": None if rand is None else fraction(rand, longest),
            "dpd_delay": duration(carry.read(said, "dpd_delay", seconds)),
            "encapsulation": said.flag("encap") or None,
            "fragmentation": said.word("fragmentation", _FRAGMENTATION),
            "unique": said.word("unique", _UNIQUE),
            "childless": said.word("childless", _CHILDLESS),
            "reauth": duration(reauth),
        }
    )


def _child(
    said: Statements,
    name: str,
    local: list[str],
    remote: list[str],
    *,
    around: Statements,
    weak: list[str],
) -> dict[str, Plain]:
    mode = said.take("mode")
    meaning = "tunnel" if mode is None else _MODES.get(mode.value.lower(), "")
    if mode is not None and not meaning:
        said.leave_out(mode, f"there is no mode {mode.value} here")
    dscp = said.word("copy_dscp", _COPIES_DSCP_OUT)
    if (setting := said.take("copy_dscp")) and setting.value in ("yes", "in"):
        said.lose(setting, "the DSCP of the outer header is never copied inwards")
    if (setting := said.take("priority")) and setting.value == "0":
        setting = None
    carry.one_protocol(said, esp="esp_proposals", ah="ah_proposals")
    ah = _proposals(said, "ah_proposals", ProtocolId.AH, weak)
    esp = _proposals(said, "esp_proposals", ProtocolId.ESP, weak)
    common = {
        "name": name,
        "local_ts": _selectors(said, "local_ts", local),
        "remote_ts": _selectors(said, "remote_ts", remote),
        "priority": None if setting is None else carry.read(said, "priority", count),
    }
    limits = [read_limits(said, unit, read) for unit, read in _LIMITS]
    protected = {
        "mode": "transport" if meaning == "transport" else None,
        "esp": {"proposals": esp} if esp and not ah else None,
        "ah": {"proposals": ah} if ah else None,
        **child_lifetimes(limits[0], limits[1], limits[2], said),
        "replay_window": carry.window(said, "replay_window"),
        "copy_dscp": False if dscp == "" else None,
        "copy_df": False if said.flag("copy_df") is False else None,
        "placement": carry.placement(said, "hw_offload"),
        "start": said.word("start_action", _START),
        "dpd_action": said.word("dpd_action", _LOSS),
        "close_action": said.word("close_action", _LOSS),
        "per_cpu_sas": per_cpu_sas(said),
        **marks(said),
    }
    protected["interface"] = by_if_id(said, around, protected)
    said.judge(keywords.CHILD)
    return without_defaults({**common, **({"action": meaning} if meaning in SHUNTS else protected)})


def _proposals(said: Statements, keyword: str, protocol: ProtocolId, weak: list[str]) -> list[str]:
    setting = said.take(keyword)
    if setting is None:
        return []
    return carry.taken_proposals(said, setting, strongswan(setting.items, protocol), weak)


def _selectors(said: Statements, keyword: str, places: list[str]) -> list[str]:
    setting = said.take(keyword)
    return [] if setting is None else carry.selectors(said, setting, list(setting.items), places)
