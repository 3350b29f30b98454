"""Common accelerators with the rates that their makers state, to predict for machines that are not available.

An available machine is measured instead (:mod:`tunecast.hardware.machine`). Stated rates are dense peaks,
without sparsity; the share that a finetuning reaches is the efficiency in :mod:`tunecast.estimate.seconds`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from tunecast.errors import ConfigurationError
from tunecast.records import Machine


@dataclass(frozen=True)
class Accelerator:
    """One accelerator.

    Args:
        name: Its name on the command line.
        memory_gib: Memory available to programs, in 2^30 bytes.
        bfloat16: Peak dense FLOP/s of matrix products in bfloat16; 0 if the hardware has none.
        float16: The same in float16.
        float32: Peak FLOP/s in float32, without TF32.
        bandwidth: Bytes per second between memory and processor.
        aliases: Other common names.
    """

    name: str
    memory_gib: float
    bfloat16: float
    float16: float
    float32: float
    bandwidth: float
    aliases: tuple[str, ...] = ()

    @property
    def memory_bytes(self) -> int:
        """Memory available to programs, in bytes."""
        return round(self.memory_gib * 2**30)


def _of(
    name: str, memory_gib: float, teraflops: tuple[float, float, float], bandwidth_gb: float, *aliases: str
) -> Accelerator:
    """Build an accelerator from (bfloat16, float16, float32) in 10^12 FLOP/s, and 10^9 bytes per second."""
    low, half, full = (rate * 1e12 for rate in teraflops)
    return Accelerator(name, memory_gib, low, half, full, bandwidth_gb * 1e9, aliases)


# Dense rates from the makers' data sheets and architecture white papers, with products accumulated in
# float32: half of what is stated with sparsity. Memory as torch reports it: a card sold as 24 GB has 24 GiB
# less the 0.2 to 3 that the driver and error correction reserve.
ACCELERATORS: tuple[Accelerator, ...] = (
    _of("B200", 178.3, (2250, 2250, 80), 8000),
    _of("MI300X", 191.9, (1307, 1307, 163), 5300),
    _of("GH200", 94.5, (989, 989, 67), 4000, "GH200 96GB", "GH200 480GB"),
    _of("H200", 139.8, (989, 989, 67), 4800, "H200 SXM"),
    _of("H100 SXM", 79.2, (989, 989, 67), 3350, "H100", "H100 80GB HBM3", "H100 SXM5"),
    _of("H100 NVL", 93.1, (835, 835, 60), 3938),
    _of("H100 PCIe", 79.2, (756, 756, 51), 2000),
    _of("A100 80GB", 79.2, (312, 312, 19.5), 2039, "A100", "A100 SXM 80GB", "A100-SXM4-80GB"),
    _of("A100 PCIe 80GB", 79.2, (312, 312, 19.5), 1935, "A100 80GB PCIe"),
    _of("A100 40GB", 39.4, (312, 312, 19.5), 1555, "A100 SXM 40GB", "A100-SXM4-40GB", "A100 PCIe 40GB"),
    _of("A40", 44.4, (149.7, 149.7, 37.4), 696),
    _of("A30", 23.5, (165, 165, 10.3), 933),
    _of("L40S", 44.4, (362, 362, 91.6), 864),
    _of("L40", 44.4, (181, 181, 90.5), 864),
    _of("L4", 22, (121, 121, 30.3), 300),
    _of("A10", 22, (125, 125, 31.2), 600),
    _of("A10G", 22.1, (70, 70, 31.2), 600),
    _of("T4", 14.7, (0, 65, 8.1), 320),
    _of("V100 32GB", 31.8, (0, 125, 15.7), 900, "V100 SXM2 32GB"),
    _of("V100 16GB", 15.7, (0, 125, 15.7), 900, "V100", "V100 SXM2 16GB"),
    _of("RTX 6000 Ada", 47.5, (364.2, 364.2, 91.1), 960, "RTX 6000 Ada Generation"),
    _of("RTX A6000", 47.5, (154.8, 154.8, 38.7), 768),
    _of("RTX A5000", 23.7, (111.1, 111.1, 27.8), 768),
    _of("RTX A4000", 15.7, (76.7, 76.7, 19.2), 448),
    _of("RTX 3060", 11.8, (25.5, 25.5, 12.7), 360),
    _of("RTX 3080", 9.7, (59.5, 59.5, 29.8), 760),
    _of("RTX 3090", 23.6, (71, 71, 35.6), 936),
    _of("RTX 3090 Ti", 23.6, (80, 80, 40), 1008),
    _of("RTX 4080", 15.6, (97.5, 97.5, 48.7), 717),
    _of("RTX 4090", 23.6, (165, 165, 82.6), 1008),
    _of("RTX 5080", 15.5, (112.6, 112.6, 56.3), 960),
    _of("RTX 5090", 31.4, (209.5, 209.5, 104.8), 1792),
)


def find_accelerator(name: str) -> Accelerator:
    """Find an accelerator by name, ignoring case, spaces, hyphens, and the names of makers and product lines.

    4090 is enough for the RTX 4090; the memory that a card is sold with may follow its name.

    Raises:
        ConfigurationError: The accelerator is unknown; the hint lists similar names, or all.
    """
    wanted = _plain(name)
    known = {_plain(label): item for item in ACCELERATORS for label in (item.name, *item.aliases)}
    for label, item in known.items():
        if wanted == label or _is_with_memory(wanted, label, item):
            return item
    near = list(dict.fromkeys(known[label].name for label in _nearest(wanted, known)))
    everything = ", ".join(item.name for item in ACCELERATORS)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known ones: {everything}."
    raise ConfigurationError(f"--gpu: {name!r} is unknown.", hint)


def as_machine(accelerator: Accelerator, *, cores: int = 8, memory_bytes: int = 64_000_000_000) -> Machine:
    """Describe an accelerator as a :class:`~tunecast.records.Machine` with its stated rates.

    Processor cores and main memory beside it are assumed.
    """
    rates = {"bfloat16": accelerator.bfloat16, "float16": accelerator.float16, "float32": accelerator.float32}
    return Machine(
        device="cuda",
        cores=cores,
        threads=cores,
        memory_bytes=memory_bytes,
        device_memory_bytes=accelerator.memory_bytes,
        flops_per_second={dtype: rate for dtype, rate in rates.items() if rate},
        bandwidth_bytes_per_second=accelerator.bandwidth,
    )


def _is_with_memory(wanted: str, label: str, accelerator: Accelerator) -> bool:
    """Whether a plain name is a label followed by the memory that the card is sold with."""
    sold = re.fullmatch(r"(\d+)gb", wanted.removeprefix(label)) if wanted.startswith(label) else None
    return sold is not None and 0.9 * int(sold[1]) < accelerator.memory_gib < int(sold[1])


def _plain(name: str) -> str:
    without_maker = re.sub(r"nvidia|amd|instinct|geforce|tesla|rtx", "", name.lower())
    return re.sub(r"[^a-z0-9]", "", without_maker)


def _nearest(wanted: str, known: Iterable[str]) -> list[str]:
    labels = list(known)
    within = [label for label in labels if wanted and (wanted in label or label in wanted)]
    return within or difflib.get_close_matches(wanted, labels, n=2, cutoff=0.6)
