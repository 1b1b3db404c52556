# SPDX-License-Identifier: Apache-2.0
"""GPT-2 checkpoints as Hugging Face writes them: a folder, read lazily and checked on the way.

Opening a checkpoint reads its ``config.json`` and the headers of its ``safetensors`` files: every
tensor is known to be there with the right shape before the first weight is read.
"""

import dataclasses
import json
import math
import pathlib
from typing import Any

import ml_dtypes  # noqa: F401  (teaches NumPy, and with it safetensors, BF16)
import numpy as np
import numpy.typing as npt
import safetensors

from rtl_gen.spec.config import HEAD
from rtl_gen.spec.formats import parse as parse_pattern

from .errors import UserError
from .shape import GELU_ERF, GELU_TANH, Shape

Floats = npt.NDArray[np.float32]

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
#: Key of ``config.json`` under which pruning leaves its notes.
NOTES = "heddle"

_GELU = {"gelu_new": GELU_TANH, "gelu_pytorch_tanh": GELU_TANH, "gelu": GELU_ERF}
_FLOATS = {"F16", "BF16", "F32", "F64"}
_SIZES = {"n_layer": None, "n_embd": None, "n_head": None, "vocab_size": None, "n_positions": None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """Parameters of one layer; matrices are [outputs, inputs]."""

    gamma1: Floats
    beta1: Floats
    #: Queries, keys and values one after another.
    qkv: Floats
    qkv_bias: Floats
    out: Floats
    out_bias: Floats
    gamma2: Floats
    beta2: Floats
    up: Floats
    up_bias: Floats
    down: Floats
    down_bias: Floats


#: Matrices of a layer, those that are pruned: field of :class:`Layer` and name in the file.
MATRICES = {"qkv": "attn.c_attn", "out": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
_NORMS = {"1": "ln_1", "2": "ln_2"}


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value


def _whole(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{key} in {CONFIG} must be a whole number of at least 1, not {value!r}")
    return value


def read_shape(config: dict[str, Any]) -> Shape:
    """The shape that a ``config.json`` describes.

    Raises
    ------
    UserError
        It is no GPT-2, or one with a feature that the cards lack.
    """
    kind = config.get("model_type")
    if kind != "gpt2":
        raise UserError(f"model_type in {CONFIG} must be 'gpt2', not {kind!r}")
    names = config.get("architectures") or ["GPT2LMHeadModel"]
    if not set(names) & {"GPT2LMHeadModel", "GPT2Model"}:
        raise UserError(f"architectures in {CONFIG} must have GPT2LMHeadModel, not {names}")
    for key in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if config.get(key):
            raise UserError(f"{key} in {CONFIG} must be false: cards do not support it")
    sizes = {key: _whole(config, key) for key in _SIZES}
    activation = config.get("activation_function", "gelu_new")
    if activation not in _GELU:
        raise UserError(f"activation_function in {CONFIG} must be one of {', '.join(_GELU)}, "
                        f"not {activation!r}")
    if sizes["n_embd"] != HEAD * sizes["n_head"]:
        raise UserError(f"a head must have {HEAD} elements: n_embd in {CONFIG} must be "
                        f"{HEAD} × n_head = {HEAD * sizes['n_head']}, not {sizes['n_embd']}")
    inner = 4 * sizes["n_embd"] if config.get("n_inner") is None else _whole(config, "n_inner")
    epsilon = config.get("layer_norm_epsilon", 1e-5)
    if not isinstance(epsilon, int | float) or not math.isfinite(epsilon):
        raise UserError(f"layer_norm_epsilon in {CONFIG} must be a number, not {epsilon!r}")
    return Shape(
        layers=sizes["n_layer"], width=sizes["n_embd"], inner=inner,
        vocabulary=sizes["vocab_size"], context=sizes["n_positions"], epsilon=float(epsilon),
        gelu=_GELU[activation], scaled=bool(config.get("scale_attn_weights", True)))


class Checkpoint:
    """A GPT-2 on disk.

    Attributes
    ----------
    folder : pathlib.Path
    config : dict
        ``config.json`` as it is.
    shape : Shape
    tied : bool
        The LM head is the token embedding.
    pattern : str or None
        The N:M pattern that ``heddle prune`` noted.
    """

    def __init__(self, folder: str | pathlib.Path) -> None:
        self.folder = pathlib.Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"the model must be a folder with {CONFIG} and {WEIGHTS}, "
                            f"not {str(folder)!r}")
        self.config = _read_json(self.folder / CONFIG)
        self.shape = read_shape(self.config)
        self.tied = bool(self.config.get("tie_word_embeddings", True))
        self.pattern = self._noted_pattern()
        #: File by tensor name.  Files are open while a tensor is read: all that was read of an open
        #: one would stay in memory, as pages of its map.
        self._files = self._places()
        # Both forms are about: with the language model's prefix, and the bare transformer.
        self._prefix = "transformer." if "transformer.wte.weight" in self._files else ""
        handles = {name: self._open(name) for name in set(self._files.values())}
        for name, shape in self._expected().items():
            self._check(handles, name, shape)

    def _noted_pattern(self) -> str | None:
        notes = self.config.get(NOTES)
        if notes is None:
            return None
        pattern = notes.get("pattern") if isinstance(notes, dict) else None
        try:
            parse_pattern(str(pattern))
        except ValueError as error:
            raise UserError(f"{NOTES}.pattern in {CONFIG}: {error}") from None
        return str(pattern)

    def _places(self) -> dict[str, str]:
        if (self.folder / WEIGHTS).exists():
            return dict.fromkeys(self._open(WEIGHTS).keys(), WEIGHTS)
        if not (self.folder / INDEX).exists():
            raise UserError(f"{self.folder} has no {WEIGHTS} (other formats must be converted)")
        placed = _read_json(self.folder / INDEX).get("weight_map")
        if not isinstance(placed, dict):
            raise UserError(f"{self.folder / INDEX} must have a weight_map")
        names = {str(name) for name in placed.values()}
        for name in names:
            if pathlib.PurePath(name).name != name:
                raise UserError(f"{self.folder / INDEX} must name files of its own folder, "
                                f"not {name!r}")
        held = {name: set(self._open(name).keys()) for name in sorted(names)}
        return {tensor: str(name) for tensor, name in placed.items() if tensor in held[str(name)]}

    def _open(self, name: str) -> Any:
        try:
            return safetensors.safe_open(self.folder / name, framework="numpy")
        except FileNotFoundError:
            raise UserError(f"{self.folder / name} is missing") from None
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{self.folder / name} is damaged or cut short: {error}") from None

    def _expected(self) -> dict[str, tuple[int, ...]]:
        s = self.shape
        expected: dict[str, tuple[int, ...]] = {
            "wte.weight": (s.vocabulary, s.width), "wpe.weight": (s.context, s.width)}
        for layer in range(s.layers):
            for norm in _NORMS.values():
                for part in ("weight", "bias"):
                    expected[f"h.{layer}.{norm}.{part}"] = (s.width,)
            for field, (inputs, outputs) in {
                    "qkv": (s.width, 3 * s.width), "out": (s.width, s.width),
                    "up": (s.width, s.inner), "down": (s.inner, s.width)}.items():
                expected[f"h.{layer}.{MATRICES[field]}.weight"] = (inputs, outputs)
                expected[f"h.{layer}.{MATRICES[field]}.bias"] = (outputs,)
        expected["ln_f.weight"] = expected["ln_f.bias"] = (s.width,)
        if not self.tied:
            expected["lm_head.weight"] = (s.vocabulary, s.width)
        return expected

    def stored_name(self, name: str) -> str:
        """The name of a tensor in the file."""
        return name if name == "lm_head.weight" else self._prefix + name

    def _check(self, handles: dict[str, Any], name: str, shape: tuple[int, ...]) -> None:
        stored = self.stored_name(name)
        if stored not in self._files:
            raise UserError(f"tensor {stored} is missing in {self.folder}")
        part = handles[self._files[stored]].get_slice(stored)
        if tuple(part.get_shape()) != shape:
            raise UserError(f"tensor {stored} must have shape {list(shape)}, "
                            f"not {list(part.get_shape())}")
        if part.get_dtype() not in _FLOATS:
            raise UserError(f"tensor {stored} must be one of {', '.join(sorted(_FLOATS))}, "
                            f"not {part.get_dtype()}")

    def names(self) -> list[str]:
        """The names of all tensors in the files, used or not."""
        return list(self._files)

    def stored(self, name: str) -> npt.NDArray[Any]:
        """A tensor by its name in the file, as it is stored."""
        try:
            value: npt.NDArray[Any] = self._open(self._files[name]).get_tensor(name)
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"tensor {name} cannot be read: {error}") from None
        return value

    def tensor(self, name: str) -> Floats:
        """A tensor in FP32; :class:`UserError` if one of its elements is no finite FP32 number."""
        stored = self.stored_name(name)
        with np.errstate(over="ignore"):
            value: Floats = self.stored(stored).astype(np.float32, copy=False)
        # Least and greatest: a flag for every element would be memory.
        if not np.isfinite([value.min(), value.max()]).all():
            raise UserError(f"tensor {stored} must be finite, but holds NaN or infinity")
        return value

    def layer(self, number: int) -> Layer:
        """All parameters of one layer, counted from 0."""
        values = {}
        for field, part in MATRICES.items():
            values[field] = np.ascontiguousarray(self.tensor(f"h.{number}.{part}.weight").T)
            values[f"{field}_bias"] = self.tensor(f"h.{number}.{part}.bias")
        for field, part in _NORMS.items():
            values[f"gamma{field}"] = self.tensor(f"h.{number}.{part}.weight")
            values[f"beta{field}"] = self.tensor(f"h.{number}.{part}.bias")
        return Layer(**values)

    def final_norm(self) -> tuple[Floats, Floats]:
        """(gamma, beta) before the LM head."""
        return self.tensor("ln_f.weight"), self.tensor("ln_f.bias")

    def embedding(self) -> Floats:
        """Token embedding [vocabulary, width]."""
        return self.tensor("wte.weight")

    def positions(self) -> Floats:
        """Position embedding [context, width]."""
        return self.tensor("wpe.weight")

    def head(self) -> Floats:
        """LM head [vocabulary, width]."""
        return self.embedding() if self.tied else self.tensor("lm_head.weight")

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Tokens that end a text."""
        return self._tokens("eos_token_id")

    @property
    def start_token(self) -> int | None:
        """What an empty prompt starts from."""
        return next(iter(self._tokens("bos_token_id") or self.stop_tokens), None)

    def _tokens(self, key: str) -> tuple[int, ...]:
        value = self.config.get(key)
        values = value if isinstance(value, list) else [] if value is None else [value]
        for token in values:
            if not isinstance(token, int) or not 0 <= token < self.shape.vocabulary:
                raise UserError(f"{key} in {CONFIG} must be below vocab_size "
                                f"({self.shape.vocabulary}), not {token!r}")
        return tuple(values)
