"""What becomes of the keywords of strongSwan's ipsec.conf(5), 5.9.8, that `ipsec_conf` does not carry.

Keywords of one side are listed without `left` or `right`.
"""

from typing import Final

from gateway.config.foreign.statement import NO, Rules, line, owner

_V1: Final = "is of IKEv1, which is not spoken here"
_EAP: Final = "EAP is not spoken here"
_MEDIATION: Final = "the mediation extension is not spoken here"
_MARKS: Final = "binds the policy to a mark; without that it would take other traffic too"
_SCRIPT: Final = "no scripts are run; watch `ipsecgw events --json` instead"
_ROUNDS: Final = "there is one round of authentication"
_FETCH: Final = "nothing is fetched: put the CRL beside the configuration and renew it there"

CONN: Final[Rules] = {
    "aaa_identity": line(_EAP),
    "aggressive": line(_V1, NO),
    "auth": line("was for AH beside ESP, which nobody does any more", {"esp"}),
    "compress": line("IPComp is not spoken here; the peer goes on without", NO),
    "dpdtimeout": line("is of IKEv1; retransmissions decide (ike.retransmit_tries)"),
    "eap_identity": line(_EAP),
    "ikedscp": line("IKE packets have no DSCP of their own here", {"000000"}),
    "inactivity": line("Child SAs are not closed for want of traffic", {"0", "0s"}),
    "installpolicy": owner(
        "leaves the policies to somebody else, and here they are always installed", {"yes"}
    ),
    "keyingtries": line("a connection that starts by itself is tried until it is up", {"%forever", "0"}),
    "mark": owner(_MARKS),
    "mark_in": owner(_MARKS),
    "mark_out": owner(_MARKS),
    "mediated_by": owner(_MEDIATION),
    "mediation": owner(_MEDIATION, NO),
    "me_peerid": line(_MEDIATION),
    "mobike": line("MOBIKE is not spoken here; a peer whose address changes makes a new IKE SA", NO),
    "modeconfig": line(_V1, {"pull"}),
    "reqid": line("is chosen by the datapath"),
    "sha256_96": owner(
        "truncates HMAC-SHA-256 to 96 bits, against RFC 4868; packets would not authenticate", NO
    ),
    "tfc": line("packets are not padded to a length", {"0"}),
    "xauth": line(_V1),
    "xauth_identity": line(_V1),
}

LOCAL: Final[Rules] = {
    "auth2": owner(_ROUNDS),
    "ca": line("which authority certified us, our certificate says"),
    "ca2": line(_ROUNDS),
    "cert2": line(_ROUNDS),
    "certpolicy": line("is demanded of the other side"),
    "dns": owner("asks the peer for name servers, which we do not"),
    "firewall": line(_SCRIPT, NO),
    "groups": line("is demanded of the other side"),
    "groups2": line(_ROUNDS),
    "hostaccess": line(_SCRIPT, NO),
    "id2": line(_ROUNDS),
    "allowany": line("our own address is one, or whatever the kernel chooses", NO),
    "sendcert": line("certificates are sent always", {"always", "yes", "ifasked"}),
    "sourceip": owner("asks the peer for a virtual address, which we do not"),
    "updown": line(_SCRIPT),
}

REMOTE: Final[Rules] = {
    **LOCAL,
    "ca": owner("demands an authority by its name; keep only that one's certificate in ipsec.d/cacerts"),
    "certpolicy": owner("demands a certificate policy, which cannot be checked here"),
    "dns": owner("gives name servers to peers, which we do not"),
    "groups": owner("demands membership in a group, which cannot be checked here"),
    "allowany": line("a peer is taken from its address alone; with a host name, from anywhere", NO),
    "sendcert": line("is what the other side does"),
    "sourceip": owner("gives virtual addresses to peers, which we do not"),
}

SETUP: Final[Rules] = {
    "cachecrls": line(_FETCH, NO),
    "charondebug": line("logging is set with `ipsecgw run --log-level`"),
}

CA: Final[Rules] = {
    **{name: line("OCSP is not spoken here") for name in ("ocspuri", "ocspuri1", "ocspuri2")},
    "certuribase": line("certificates by URL are neither sent nor fetched"),
}

FETCH_REASON: Final = _FETCH
