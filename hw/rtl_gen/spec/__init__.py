# SPDX-License-Identifier: Apache-2.0
"""The contract between generator, simulators and host: standard library only.

``config`` is the geometry of a card, ``isa`` its instruction words, ``registers`` what the host
sees, ``formats`` how weights lie in memory, ``tables`` the constants of the function units.
"""
