# SPDX-License-Identifier: Apache-2.0
"""cocotb benches of the units: each checks one unit's Verilog against ``cardsim.numerics``.

One module a unit, named like it; parameters of the unit come as JSON in ``HEDDLE_UNIT``.
"""
