"""The program that counts packets which the kernel gives up, by Debian's bcc: started as its own process.

It imports nothing but bcc, so that any Python which has that can run it. Its one argument is JSON: where the
fields of the tracepoint and of three kernel structures are, and how often to tell. It writes JSON lines:
first `{"ready": true}`, then what was dropped since the line before; or `{"error": TEXT}`. It ends with its
standard input.
"""

import importlib
import json
import os
import select
import sys

SOURCE = """
struct drop {
    u64 location;
    u32 reason;
    u32 ifindex;
    u32 netns;
    u32 protocol;
};
BPF_HASH(drops, struct drop, u64, 8192);

static __always_inline u64 pointer_at(u64 at)
{
    u64 found = 0;
    bpf_probe_read_kernel(&found, sizeof(found), (void *)at);
    return found;
}

static __always_inline u32 number_at(u64 at)
{
    u32 found = 0;
    bpf_probe_read_kernel(&found, sizeof(found), (void *)at);
    return found;
}

int on_drop(void *arguments)
{
    struct drop drop = {};
    drop.location = *(u64 *)(arguments + LOCATION);
    drop.protocol = *(u16 *)(arguments + PROTOCOL);
#ifdef REASON
    drop.reason = *(u32 *)(arguments + REASON);
#endif
#ifdef SKB_DEV
    u64 device = pointer_at(*(u64 *)(arguments + SKB) + SKB_DEV);
    if (device) {
        drop.ifindex = number_at(device + DEVICE_IFINDEX);
        drop.netns = number_at(pointer_at(device + DEVICE_NET) + NET_INUM);
    }
#endif
    drops.increment(drop);
    return 0;
}
"""


def main() -> int:
    """Count until standard input ends."""
    asked = json.loads(sys.argv[1])
    try:
        bpf = importlib.import_module("bcc").BPF
        flags = [*asked["flags"], *(f"-D{name}={value}" for name, value in asked["offsets"].items())]
        program = bpf(text=SOURCE, cflags=flags)
        program.attach_tracepoint(tp="skb:kfree_skb", fn_name="on_drop")
    except Exception as error:  # noqa: BLE001 - bcc raises whatever comes
        say({"error": str(error) or type(error).__name__})
        return 1
    say({"ready": True})
    counted = program["drops"]
    while not select.select([sys.stdin], [], [], asked["interval_s"])[0] or os.read(0, 1):
        found = [
            {
                "reason": key.reason,
                "location": bpf.ksym(key.location, show_offset=True).decode(),
                "ifindex": key.ifindex,
                "netns": key.netns,
                "protocol": key.protocol,
                "packets": getattr(value, "value", value),  # as the version of bcc has it
            }
            for key, value in counted.items_lookup_and_delete_batch()
        ]
        say({"drops": found})
    return 0


def say(message: object) -> None:
    """Write one line, now."""
    sys.stdout.write(f"{json.dumps(message)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
