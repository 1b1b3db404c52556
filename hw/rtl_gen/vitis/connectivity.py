# SPDX-License-Identifier: Apache-2.0
"""connectivity.cfg: which port meets which bank of HBM and which link, for ``v++ --config``."""

from ..card.shell import SIDES
from ..spec.config import CardConfig
from . import kernel
from .board import Board


def text(config: CardConfig, board: Board) -> str:
    """The configuration file."""
    name = kernel.name(config)
    unit = f"{name}_1"
    lines = [f"# {name} on {board.title}.", f"platform={board.platform}",
             f"kernel_frequency=0:{config.clock_mhz}", "", "[connectivity]",
             f"nk={name}:1:{unit}", "",
             "# A port for each pseudo-channel.  The kernel itself has no slr=: it is larger than"
             " one;", f"# {board.constraints_name} keeps what meets HBM beside it."]
    lines += [f"sp={unit}.{port}:HBM[{bank}]" for bank, port in enumerate(kernel.masters(config))]
    if config.cards > 1:
        assert board.links is not None      # board.check
        for side in SIDES:
            lines += ["", *_link(board.links, side, unit)]
    return "\n".join(lines) + "\n"


def _link(links: dict, side: str, unit: str) -> list[str]:
    """A link kernel beside its transceivers, and its streams."""
    wiring = links[side]
    link = wiring["kernel"]
    return [
        f"# To the {side} card of the ring.",
        f"nk={link}:1:{link}", f"slr={link}:{links['region']}",
        f"stream_connect={unit}.m_axis_{side}:{link}.tx_axis",
        f"stream_connect={link}.rx_axis:{unit}.s_axis_{side}",
        f"connect={wiring['clock']}:{link}/{wiring['clock_pin']}",
        f"connect={link}/gt_port:{wiring['lanes']}",
        f"connect={link}/init_clk:{links['init_clock']}"]
