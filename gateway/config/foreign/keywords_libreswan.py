"""What becomes of the keywords of libreswan's ipsec.conf(5), 4.10, that `ipsec_conf` does not carry.

Keywords of one side are listed without `left` or `right`.
"""

from typing import Final

from gateway.config.foreign.statement import NO, YES, Rules, line, owner

_V1: Final = "is of IKEv1, which is not spoken here"
_ROUTE_BASED: Final = "binds the policy to a mark; without that it would take other traffic too"
_OPPORTUNISTIC: Final = "is of opportunistic encryption, which is not done here"
_REDIRECT: Final = "redirection (RFC 5685) is not spoken here"
_TCP: Final = "IKE and ESP over TCP are not spoken here"
_MODECFG: Final = "configuration payloads are not spoken here"
_NSS: Final = "keys in an NSS database are not used here; export them to files (pk12util, openssl pkcs12)"
_FAMILY: Final = "the addresses tell their family; of a host name both are tried"
_CLEAR: Final = "what a policy protects never leaves in clear here"
_FETCH: Final = "nothing is fetched: CRLs are files, named in auth.certificate.crls"
_LOG: Final = "logging is set with the options of `ipsecgw run`"
_HERE: Final = "is how that daemon runs; here the options of `ipsecgw run` and systemd say so"
_OCSP: Final = "OCSP is not spoken here"
_LIMITS: Final = "half-open IKE SAs are limited by fixed numbers here"

CONN: Final[Rules] = {
    "hostaddrfamily": line(_FAMILY),
    "clientaddrfamily": line(_FAMILY),
    "connaddrfamily": line(_FAMILY),
    "sha2-truncbug": owner(
        "truncates HMAC-SHA-256 to 96 bits, against RFC 4868; packets would not authenticate", NO
    ),
    "ms-dh-downgrade": line("a rekey with a weaker group than offered is refused", NO),
    "dns-match-id": owner("demands that DNS confirms the identity, which is not asked here", NO),
    "require-id-on-certificate": line("a certificate must always confirm the identity (RFC 4945)", YES),
    "ppk": line("postquantum pre-shared keys are not carried", {*NO, "never"}),
    "nat-ikev1-method": line(_V1),
    "ikepad": line(_V1, YES),
    "mobike": line("MOBIKE is not spoken here; a peer whose address changes makes a new IKE SA", NO),
    "decap-dscp": line("the DSCP of the outer header is never copied inwards", NO),
    "narrowing": line("selectors are narrowed as RFC 7296 §2.9 says; what is left over stays blocked", YES),
    "sareftrack": line("is of a kernel stack that is gone"),
    "xauthby": line(_V1),
    "xauthfail": line(_V1),
    "pam-authorize": owner("asks PAM whether the peer may come, which is not done here", NO),
    "modecfgpull": line(_MODECFG, NO),
    "modecfgdns": line(_MODECFG),
    "modecfgdomains": line(_MODECFG),
    "modecfgbanner": line(_MODECFG),
    "remote-peer-type": line("peers have no types here", {"ietf"}),
    "nm-configured": line("is for NetworkManager", NO),
    "enable-tcp": line(_TCP, NO),
    "tcp-remoteport": line(_TCP),
    "nat-keepalive": line("keepalives are sent where a NAT was found", YES),
    "initial-contact": line("INITIAL_CONTACT is said as RFC 7296 §2.4 has it; see ike.unique", YES),
    "cisco-unity": line("that vendor ID is not sent", NO),
    "ignore-peer-dns": line(_MODECFG, YES),
    "accept-redirect": line(_REDIRECT, NO),
    "accept-redirect-to": line(_REDIRECT),
    "send-redirect": line(_REDIRECT, NO),
    "redirect-to": line(_REDIRECT),
    "fake-strongswan": line("no vendor IDs are sent", NO),
    "send-vendorid": line("no vendor IDs are sent", NO),
    "overlapip": line("is of a kernel stack that is gone", NO),
    "reqid": line("is chosen by the datapath"),
    "dpdtimeout": line("retransmissions decide (ike.retransmit_tries)", {"0"}),
    "pfsgroup": line("is obsolete there too; name the group in esp"),
    "aggressive": line(_V1, NO),
    "keyingtries": line("a connection that starts by itself is tried until it is up", {"%forever", "0"}),
    "compress": line("IPComp is not spoken here; the peer goes on without", NO),
    "metric": line("is for routes of the updown script"),
    "mtu": line("the MTU follows from the path and the SA; see `ipsecgw list child-sas`"),
    "tfc": line("packets are not padded to a length", {"0"}),
    "send-no-esp-tfc": line("that notify is not sent", NO),
    "nflog": line("packets are not copied to NFLOG; capture with `ipsecgw inspect`", {"0"}),
    "mark": owner(_ROUTE_BASED),
    "mark-in": owner(_ROUTE_BASED),
    "mark-out": owner(_ROUTE_BASED),
    "vti-routing": line("is for vti-interface"),
    "vti-shared": line("is for vti-interface"),
    "interface-ip": line("is for ipsec-interface"),
    "sendca": line("what follows our certificate in its file is sent along"),
    "labeled-ipsec": line("is obsolete there too", NO),
    "policy-label": owner("demands a security label of the traffic"),
    "failureshunt": line(_CLEAR, {"none", "drop"}),
    "negotiationshunt": line(_CLEAR, {"hold", "drop"}),
}

SIDE: Final[Rules] = {
    "vti": line("is for vti-interface"),
    "addresspool": owner(_MODECFG),
    "nexthop": line("routes say where the peer is reached"),
    "sourceip": line("packets of this host need a route with that source (ip route ... src ADDRESS)"),
    "updown": line("no scripts are run; watch `ipsecgw events --json` instead", {"%disabled"}),
    "cat": line(_OPPORTUNISTIC, NO),
    "firewall": line("is obsolete there too", NO),
    "rsasigkey": line(_NSS, {"%none", "%cert"}),
    "cert": line(_NSS),
    "ckaid": line(_NSS),
    "autheap": owner("EAP is not spoken here", {"none"}),
    "ca": line(_NSS, {"%same"}),
    "sendcert": line("certificates are sent always"),
    "xauthserver": owner(_V1, NO),
    "xauthclient": owner(_V1, NO),
    "username": line(_V1),
    "modecfgserver": owner(_MODECFG, NO),
    "modecfgclient": owner(_MODECFG, NO),
}

SETUP: Final[Rules] = {
    **{name: line(_HERE) for name in ("protostack", "listen", "ike-socket-bufsize", "ike-socket-errqueue")},
    **{name: line(_HERE) for name in ("nhelpers", "dumpdir", "seccomp", "seedbits", "ipsecdir", "nssdir")},
    "listen-udp": line("IKE is always spoken over UDP", YES),
    "listen-tcp": line(_TCP, NO),
    "nflog-all": line("packets are not copied to NFLOG; capture with `ipsecgw inspect`", {"0"}),
    "keep-alive": line("the time between NAT keepalives is fixed here"),
    "virtual-private": line("vhost: and vnet: are not understood here"),
    "myvendorid": line("no vendor IDs are sent"),
    "ikev1-secctx-attr-type": line(_V1),
    "ikev1-policy": line(_V1, {"drop"}),
    "crlcheckinterval": line(_FETCH, {"0"}),
    "crl-strict": line(_NSS, NO),
    "curl-iface": line(_FETCH),
    "curl-timeout": line(_FETCH),
    "ocsp-enable": line(_OCSP, NO),
    "ocsp-strict": line(_OCSP, NO),
    **{f"ocsp-{name}": line(_OCSP) for name in ("method", "timeout", "uri", "trustname", "cache-size")},
    **{f"ocsp-cache-{name}-age": line(_OCSP) for name in ("min", "max")},
    **{name: line(_LOG) for name in ("syslog", "plutodebug", "logfile", "logappend", "logip", "logtime")},
    "audit-log": line(_LOG),
    "ddos-mode": line(_LIMITS),
    "ddos-ike-threshold": line(_LIMITS),
    "max-halfopen-ike": line(_LIMITS),
    "global-redirect": line(_REDIRECT, NO),
    "global-redirect-to": line(_REDIRECT),
    "shuntlifetime": line(_OPPORTUNISTIC),
    "xfrmlifetime": line("is how long the datapath holds packets, which is fixed here"),
    "statsbin": line("no scripts are run; watch `ipsecgw events --json` instead"),
    **{f"dnssec-{name}": line("DNSSEC is the resolver's business") for name in ("rootkey-file", "anchors")},
    "dnssec-enable": line("DNSSEC is the resolver's business", NO),
}

NSS_REASON: Final = _NSS
OPPORTUNISTIC_REASON: Final = _OPPORTUNISTIC
