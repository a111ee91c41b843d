"""What becomes of the keywords of swanctl.conf(5) that `swanctl` does not carry, section by section.

The list is that of strongSwan 5.9.8; keywords of later versions are judged as far as they are known.
"""

from typing import Final

from gateway.config.foreign.statement import NO, Rules, line, owner

_V1: Final = "is of IKEv1, which is not spoken here"
_EAP: Final = "EAP is not spoken here"
_PKCS11: Final = "keys and certificates on a token are not used here; export them to files"
_FETCH: Final = "nothing is fetched: put the CRL beside the configuration and renew it there"
_ZERO: Final = ("0", "0s")

CONNECTION: Final[Rules] = {
    "aggressive": line(_V1, NO),
    "pull": line(_V1, {"yes"}),
    "dpd_timeout": line("is of IKEv1; retransmissions decide (ike.retransmit_tries)", _ZERO),
    "dscp": line("IKE packets have no DSCP of their own here", {"000000"}),
    "mobike": line("MOBIKE is not spoken here; a peer whose address changes makes a new IKE SA", NO),
    "send_certreq": line("authorities are always named in the request for a certificate", {"yes"}),
    "send_cert": line("certificates are sent always", {"always", "ifasked"}),
    "ppk_id": line("postquantum pre-shared keys are not carried"),
    "ppk_required": owner("demands a postquantum pre-shared key", NO),
    "keyingtries": line("a connection that starts by itself is tried until it is up", {"0"}),
    "vips": owner("asks the peer for a virtual address, which we do not"),
    "pools": owner("gives virtual addresses to peers, which we do not"),
    "mediation": owner("the mediation extension is not spoken here", NO),
    "mediated_by": owner("the mediation extension is not spoken here"),
    "mediation_peer": line("the mediation extension is not spoken here"),
    "ocsp": line("OCSP is not spoken here"),
}

LOCAL: Final[Rules] = {
    "round": line("there is one round of authentication"),
    "eap_id": line(_EAP),
    "aaa_id": line(_EAP),
    "xauth_id": line(_V1),
}

REMOTE: Final[Rules] = {
    "round": line("there is one round of authentication"),
    "eap_id": line(_EAP),
    "groups": owner("demands membership in a group, which cannot be checked here"),
    "cert_policy": owner("demands a certificate policy, which cannot be checked here"),
    "ca_id": owner("demands an authority by its name; name its certificate (cacerts) instead"),
}

CERTIFICATE: Final[Rules] = {name: owner(_PKCS11) for name in ("handle", "slot", "module")}

CHILD: Final[Rules] = {
    "sha256_96": owner(
        "truncates HMAC-SHA-256 to 96 bits, against RFC 4868; packets would not authenticate", NO
    ),
    "updown": line("no scripts are run; watch `ipsecgw events --json` instead"),
    "hostaccess": line("is for an updown script", NO),
    "policies": owner("leaves the policies to somebody else, and here they are always installed", {"yes"}),
    "policies_fwd_out": line("forwarded packets need no policy of their own here", NO),
    "ipcomp": line("IPComp is not spoken here; the peer goes on without", NO),
    "inactivity": line("Child SAs are not closed for want of traffic", _ZERO),
    "reqid": line("is chosen by the datapath", {"0"}),
    "interface": owner("binds the policy to a device; without that it would take other traffic too"),
    "mark_in_sa": line("is for mark_in", NO),
    "label": owner("demands a security label of the traffic"),
    "label_mode": line("is for label"),
    "tfc_padding": line("packets are not padded to a length", {"0"}),
    "copy_ecn": line("ECN is always carried over as RFC 6040 says", {"yes"}),
}

AUTHORITY: Final[Rules] = {
    "handle": line(_PKCS11),
    "slot": line(_PKCS11),
    "module": line(_PKCS11),
    "ocsp_uris": line("OCSP is not spoken here"),
    "cert_uri_base": line("certificates by URL are neither sent nor fetched"),
}

FETCH_REASON: Final = _FETCH

POOL_REASON: Final = "virtual addresses and other configuration payloads are not given out here"

#: Prefixes of sections in `secrets` that hold nothing for us.
SECRET_REASONS: Final = {
    "eap": _EAP,
    "xauth": _V1,
    "ntlm": _EAP,
    "ppk": "postquantum pre-shared keys are not carried",
    "pkcs12": "take certificate and key out of the container: openssl pkcs12 -in FILE -nodes",
    "token": _PKCS11,
}

SECTION_REASONS: Final = {
    "connections": "holds only connections",
    "secrets": "holds only secrets",
    "pools": "holds only pools",
    "authorities": "holds only authorities",
}
