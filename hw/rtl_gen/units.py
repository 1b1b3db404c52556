# SPDX-License-Identifier: Apache-2.0
"""Units that can be generated alone, by name."""

import dataclasses
from collections.abc import Callable
from typing import Any

from amaranth.lib import wiring

from .spec import config as configs
from .spec.config import CardConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit with its parameters.

    Attributes
    ----------
    doc : str
        What it does, in a line.
    build : callable
        Makes the component from the parameters (or from a ``CardConfig``).
    parameters : dict
        Default of each parameter; None if the unit takes a card configuration.
    """

    doc: str
    build: Callable[..., wiring.Component]
    parameters: dict[str, Any] | None = None


def _engine(config: CardConfig):
    from .matmul import Engine
    return Engine(config)


def _channel(config: CardConfig):
    from .memory import Channel
    return Channel(config)


def _memory(config: CardConfig):
    from .memory import MemoryUnit
    return MemoryUnit(config)


def _reader(**parameters):
    from .memory.reader import Reader
    return Reader(**parameters)


def _control(config: CardConfig):
    from .control import Control
    return Control(config, commit=0)


def _link(**parameters):
    from .link import Link
    return Link(**parameters)


def _exchange(config: CardConfig):
    from .link import Exchange
    return Exchange(config)


def _epilogue(config: CardConfig):
    from .matmul import Epilogue
    return Epilogue(config)


def _vector(config: CardConfig):
    from .vector import Vector
    return Vector(config)


def _sampler(config: CardConfig):
    from .sample import Sampler
    return Sampler(config)


def _softmax(**parameters):
    from .softmax import Softmax
    return Softmax(tag=1, **parameters)


def _quantise(**parameters):
    from .vector import SliceQuantiser
    return SliceQuantiser(tag=1, passes=False, **parameters)


def _layernorm(**parameters):
    from .vector import LayerNorm
    return LayerNorm(**parameters)


def _streamed(function: str):
    def build(**parameters):
        from .fp32.streamed import Streamed
        return Streamed(function=function, **parameters)
    return build


# Each unit is imported when it is asked for: the contract's readers need not wait for all of them.
UNITS: dict[str, Unit] = {
    "engine": Unit(doc="Matmul engine: N:M-sparse and dense lanes with accumulators.",
                   build=_engine),
    "channel": Unit(doc="HBM channel: read ahead, decode patterns, write.", build=_channel),
    "reader": Unit(doc="HBM reader: AXI4 read master with many bursts under way.", build=_reader,
                   parameters={"beat_bytes": 64, "burst": 64, "outstanding": 32}),
    "memory": Unit(doc="LOAD and STORE between channels, scratchpad and scales.", build=_memory),
    "control": Unit(doc="Commands, dispatch, dependency counters, registers, status.",
                    build=_control),
    "epilogue": Unit(doc="Scale, deferred norm, bias, GELU and residual.", build=_epilogue),
    "vector": Unit(doc="FP32 vector unit with quantiser and norm.", build=_vector),
    "sampler": Unit(doc="Argmax, top-k and log-sum-exp of logits.", build=_sampler),
    "link": Unit(doc="Ring link: frames with CRC, repair, credits, hello of the neighbour.",
                 build=_link, parameters={
                     "beat_bytes": 64, "depth": 512, "frame_beats": 8, "timeout": 1024,
                     "keepalive": 256, "silence": 4096}),
    "exchange": Unit(doc="SEND and RECEIVE between scratchpad and ring links.", build=_exchange),
    "softmax": Unit(doc="Streaming softmax.", build=_softmax,
                    parameters={"lanes": 16, "words": 64, "tokens": 1}),
    "quantise": Unit(doc="Slices of FP32 to INT8 digits with one exponent.", build=_quantise,
                     parameters={"lanes": 16, "depth": 16}),
    "layernorm": Unit(doc="Streaming LayerNorm.", build=_layernorm,
                      parameters={"lanes": 16, "words": 64}),
    "exp": Unit(doc="Exponential of every element.", build=_streamed("exp"),
                parameters={"lanes": 16}),
    "gelu": Unit(doc="GELU, tanh form, of every element.", build=_streamed("gelu_tanh"),
                 parameters={"lanes": 16}),
    "gelu_erf": Unit(doc="GELU, erf form, of every element.", build=_streamed("gelu_erf"),
                     parameters={"lanes": 16}),
}


def parse_settings(settings: list[str]) -> dict[str, str]:
    """``["lanes=16"]`` as a dictionary."""
    result = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"a setting must be given as name=value, as in lanes=16, not {text!r}")
        result[name] = value
    return result


def configure(config: CardConfig, settings: dict[str, str]) -> CardConfig:
    """``config`` with some parameters changed."""
    fields = {field.name: field for field in dataclasses.fields(CardConfig)}
    changes: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in fields:
            raise ValueError(f"{name} must be a parameter of a card ({', '.join(fields)})")
        if name == "name":
            changes[name] = value
        elif name == "group_sizes":
            changes[name] = tuple(_integer(name, part) for part in value.split(","))
        else:
            changes[name] = _integer(name, value)
    return dataclasses.replace(config, **changes)


def _integer(name: str, value: str) -> int:
    try:
        return int(value, 0)
    except ValueError:
        raise ValueError(f"{name} must be a whole number, not {value!r}") from None


def build(name: str, config: str, settings: dict[str, str]) -> wiring.Component:
    """The component of a unit.

    Parameters
    ----------
    name : str
        Of :data:`UNITS`.
    config : str
        Name of the card configuration, for units that take one.
    settings : dict
        Parameters by name, as text.
    """
    if name not in UNITS:
        raise ValueError(f"the unit must be one of card, {', '.join(UNITS)}, not {name!r}")
    unit = UNITS[name]
    if unit.parameters is None:
        return unit.build(configure(configs.find(config), settings))
    if unknown := settings.keys() - unit.parameters.keys():
        raise ValueError(f"{name} has the parameters {', '.join(unit.parameters)}, "
                         f"not {', '.join(sorted(unknown))}")
    return unit.build(**unit.parameters | {k: _integer(k, v) for k, v in settings.items()})


def describe(name: str, config: str, settings: dict[str, str]) -> dict[str, Any]:
    """Unit and parameters as values, for whoever tests the generated Verilog."""
    if name == "card" or UNITS[name].parameters is None:
        values = dataclasses.asdict(configure(configs.find(config), settings))
    else:
        values = UNITS[name].parameters | {k: _integer(k, v) for k, v in settings.items()}
    return {"unit": name, "parameters": values}
