# SPDX-License-Identifier: Apache-2.0
"""What Vitis needs to make a bitstream of a card: ``heddle rtl --board``."""
