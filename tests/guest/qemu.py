"""A kernel of Debian's as it is, in QEMU: with its own crypto drivers, SMP, and a JIT for BPF.

There is no KVM on the machines that the tests are for, so that QEMU translates: a boot takes 15 to 30 s.
What runs in it sees the host's files by 9p, as in the other guest.
"""

import lzma
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.guest.machine import CACHE, HERE, MEMORY_MIB, GuestError

CPUS: Final = 2
_MOUNT: Final = "trans=virtio,version=9p2000.L,msize=512000"
_MODULES: Final = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_rng")
"""What leads to the host's files; where a kernel has one built in there is no module."""
_DIRECTORIES: Final = ("bin", "dev", "lower", "modules", "root", "upper")
_INIT: Final = """#!/bin/busybox sh
# PID 1, before the host's files are there.
PATH=/bin; export PATH
busybox mount -t devtmpfs devtmpfs /dev
for module in {modules}; do busybox insmod /modules/$module; done
busybox mount -t 9p -o {mount},cache=loose,ro host /lower
busybox mount -t tmpfs tmpfs /upper
busybox mkdir /upper/files /upper/work
busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /root
busybox mkdir -p /root/lib/modules/{release}
busybox mount --bind /root{tree} /root/lib/modules/{release}
export GUEST_ROOT=/ GUEST_SHARE={share} GUEST_MOUNT='mount -t 9p -o {mount},cache=none share'
exec busybox switch_root /root {init}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StockKernel:
    """The kernel that `kernel/fetch-stock` unpacked."""

    image: Path
    modules: Path

    @classmethod
    def fetched(cls, cache: Path = CACHE) -> Self:
        """Return it.

        Raises:
            GuestError: There is none, or nothing to run it.
        """
        folder = cache / "guest-stock" / "stock"
        if not (folder / "image").exists():
            raise GuestError(f"there is no kernel in {folder}: `make deps-guest-stock` fetches it")
        if shutil.which("qemu-system-x86_64") is None:
            raise GuestError("qemu-system-x86_64 is missing: `make deps-guest-stock` installs it")
        folder = folder.resolve()
        return cls(image=folder / "image", modules=folder / "modules")

    def command(self, share: Path) -> list[str]:
        """Return what boots it with a directory of the host's for both; writes its first files into that."""
        archive = share / "initrd"
        archive.write_bytes(self._first_files(share))
        return [
            *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"),
            *("-m", f"{MEMORY_MIB}M", "-smp", str(CPUS), "-nodefaults", "-no-reboot"),
            *("-display", "none", "-serial", "stdio"),
            *("-kernel", str(self.image), "-initrd", str(archive)),
            "-append",
            "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable random.trust_cpu=on",
            *("-fsdev", "local,id=h,path=/,security_model=none,readonly=on,multidevs=remap"),
            *("-device", "virtio-9p-pci,fsdev=h,mount_tag=host"),
            *("-fsdev", f"local,id=s,path={share},security_model=none"),
            *("-device", "virtio-9p-pci,fsdev=s,mount_tag=share", "-device", "virtio-rng-pci"),
        ]

    def environment(self) -> dict[str, str]:
        """Return what it needs in the environment."""
        return {}

    def _first_files(self, share: Path) -> bytes:
        busybox = shutil.which("busybox")
        if busybox is None:
            raise GuestError("busybox is missing: `make deps-guest-stock` installs it")
        modules = self._needed_modules()
        init = _INIT.format(
            modules=" ".join(module.name.removesuffix(".xz") for module in modules),
            mount=_MOUNT,
            release=self.modules.resolve().name,
            tree=self.modules.resolve(),
            share=share,
            init=HERE / "init",
        )
        files = [(name, 0o040755, b"") for name in _DIRECTORIES]
        files.append(("bin/busybox", 0o100755, Path(busybox).read_bytes()))
        for module in modules:
            data = module.read_bytes()
            is_packed = module.suffix == ".xz"
            name = module.name.removesuffix(".xz")
            files.append((f"modules/{name}", 0o100644, lzma.decompress(data) if is_packed else data))
        files.append(("init", 0o100755, init.encode()))
        return _archive(files)

    def _needed_modules(self) -> list[Path]:
        """Return the modules before the host's files are there, those that others need first."""
        needs: dict[str, list[str]] = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            path, _, others = line.partition(":")
            needs[path] = others.split()
        by_name = {Path(path).name.split(".ko")[0].replace("-", "_"): path for path in needs}
        found: dict[str, None] = {}
        for name in _MODULES:
            if name in by_name:
                path = by_name[name]
                found.update(dict.fromkeys((*reversed(needs[path]), path)))
        return [self.modules / path for path in found]


def _archive(files: list[tuple[str, int, bytes]]) -> bytes:
    """Return files as the kernel unpacks them: a cpio archive of the "new ASCII" format."""
    out = bytearray()
    for number, (name, mode, data) in enumerate([*files, ("TRAILER!!!", 0, b"")], start=1):
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        out += bytes(-len(out) % 4)
        out += data
        out += bytes(-len(out) % 4)
    return bytes(out)
