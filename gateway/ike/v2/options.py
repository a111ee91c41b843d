"""How this gateway speaks IKEv2 whatever the connection: limits against floods, deadlines, tolerances."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """Options of the whole endpoint; times in seconds."""

    cookie_threshold: int = 32
    """From this many half-open IKE SAs on, an IKE_SA_INIT request must bring a cookie (RFC 7296 §2.6)."""
    half_open_limit: int = 1024
    """With this many half-open IKE SAs, the oldest of the fullest prefix makes room for another."""
    cookie_threshold_per_prefix: int = 8
    """The same for the half-open IKE SAs of one IPv4 address or IPv6 /64 that brought no cookie."""
    half_open_per_prefix: int = 256
    """How many one IPv4 address or IPv6 /64 may have that brought a cookie; twice as many an IPv4 /24 or IPv6
    /56, four times as many an IPv6 /48. With more, the oldest of them makes room: a whole site behind one
    address of a NAT gets on, and so does everybody else."""
    refusals_per_s: float = 100.0
    """Requests that are refused after they were parsed (no proposal in common, another key exchange) leave no
    half-open IKE SA. With more of them a second, a request must bring a cookie too."""
    half_open_timeout_s: float = 30.0
    """A responder forgets an IKE SA that is not authenticated after this long."""
    half_open_message_bytes: int = 16384
    """Longest fragmented message of a peer that is not authenticated, inside; afterwards it is 65535."""
    reassembly_timeout_s: float = 30.0
    """The fragments of a message that is not whole are forgotten this long after the first of them came."""
    cookie_secret_lifetime_s: float = 60.0
    """How long a cookie secret makes new cookies; those of the secret before it are still accepted."""
    answers_per_s: float = 200.0
    """INVALID_IKE_SPI, and INVALID_MAJOR_VERSION, are said so often in all (RFC 7296 §2.21.4)."""
    answer_pause_s: float = 1.0
    """How long one IPv4 address or IPv6 /64 waits for the next of these."""
    hint_pause_s: float = 10.0
    """A peer is checked for liveness because of what nobody authenticated at most this often."""
    request_deadline_s: float = 15.0
    """How long an SPI, an installation or a credential is waited for; then it counts as refused."""
    child_limit: int = 1024
    """So many Child SAs an IKE SA may have; beyond that the peer is told NO_ADDITIONAL_SAS."""
    inbound_linger_s: float = 5.0
    """How long a replaced inbound SA still decrypts packets in flight (RFC 7296 §2.8)."""
    outbound_switch_s: float = 20.0
    """The responder of a Child rekey uses the new outbound SA after this long, whatever the peer shows.

    Longer than a slow datapath of the peer may take, for what is sent before its inbound SA is there is lost.
    """
    takeover_s: float = 0.25
    """The responder of a Child SA whose traffic another one carries, not as its rekey, sends on it after this
    long, whatever the peer shows: long enough for the peer to get our answer and to install its half.
    """
    per_cpu_wait_s: float = 10.0
    """The responder of a Child SA for all CPUs asks for those of single CPUs that it lacks after this long.

    The peer asks at once, and mostly that is enough (RFC 9611 §4).
    """
    delete_grace_s: float = 30.0
    """How long the peer has to delete what a rekey replaced or made twice, before we do it."""
    duplicate_grace_s: float = 5.0
    """The same for one of two IKE SAs that both sides started at once."""
    rekey_retry_s: float = 10.0
    """First wait before a failed rekey is tried again; doubled each time until the hard lifetime."""
    temporary_failure_retry_s: float = 2.0
    """First wait after TEMPORARY_FAILURE (RFC 7296 §2.25), with some jitter."""
    keepalive_s: float = 20.0
    """Interval of NAT keepalives while a NAT hides us (RFC 3948 §4); 0 never."""
    nonce_bytes: int = 32
    """Length of our nonces: 16 to 256, and at least half the PRF key (RFC 7296 §2.10)."""
    vendor_id: bytes | None = b"ipsec-gateway"
    """Sent in IKE_SA_INIT; `None` sends none."""
    tells_ike_keys: bool = False
    """Tell the keys of IKE SAs (`IkeSaKeysDerived`) for a key log; otherwise they stay inside."""
    send_initial_contact: bool = True
    """Say INITIAL_CONTACT with the first IKE SA to a peer; off while a restarted controller adopts SAs."""
    accept_initial_contact: bool = True
    """Remove other IKE SAs with the same identities when the peer says INITIAL_CONTACT."""
