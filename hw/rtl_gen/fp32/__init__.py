# SPDX-License-Identifier: Apache-2.0
"""FP32 function units, bit for bit as ``docs/numerics.md`` defines them.

All but :class:`~rtl_gen.fp32.divide.Divide` are pipelines that take operands every cycle and give
the result ``LATENCY`` cycles later; they hold while ``en`` is 0.
"""

from .add import Add
from .add_unsigned import AddUnsigned
from .bits import NAN, key
from .convert import Convert
from .divide import Divide, Root
from .exp import Exp
from .gelu import Gelu
from .maximum import Max
from .mul import Mul
from .pipe import Pipe
from .rcp import Rcp
from .rsqrt import Rsqrt
from .tree import MaxTree, Tree, UnsignedTree

__all__ = [
    "NAN", "Add", "AddUnsigned", "Convert", "Divide", "Exp", "Gelu", "Max", "MaxTree", "Mul",
    "Pipe", "Rcp", "Root", "Rsqrt", "Tree", "UnsignedTree", "key"]
