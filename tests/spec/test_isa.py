# SPDX-License-Identifier: Apache-2.0
"""One table of fields, several readers: they agree on every word."""

import pytest
from amaranth import Const
from hypothesis import given
from hypothesis import strategies as st

from rtl_gen.common import layouts
from rtl_gen.spec import contract, isa

NAMES = sorted(isa.FORMATS)


def instructions():
    """Random instructions of all kinds: (name, values of all fields but the opcode)."""
    def values(name):
        return st.tuples(st.just(name), st.fixed_dictionaries({
            field.name: st.integers(field.limits.start, field.limits.stop - 1)
            for field in isa.fields(name) if field.name != "opcode"}))
    return st.sampled_from(NAMES).flatmap(values)


@given(instructions())
def test_encoder_decoder_and_gateware_layout_agree(instruction):
    name, values = instruction
    word = isa.encode(name, **values)
    opcode = isa.FORMATS[name][0]
    assert isa.decode(word) == (name, {"opcode": opcode, **values})
    layout = layouts.fields(name)
    assert Const.cast(layout.const({"opcode": opcode, **values})).value == word
    back = layout.from_bits(word)
    assert {field: back[field] for field in values} == values


def test_every_instruction_has_its_own_opcode_and_none_is_zero():
    opcodes = [opcode for opcode, *_ in isa.FORMATS.values()]
    assert len(set(opcodes)) == len(opcodes)
    assert 0 not in opcodes      # memory that nobody wrote is no program


@pytest.mark.parametrize("name", NAMES)
def test_every_instruction_fits_a_word_and_says_what_it_does(name):
    fields = isa.fields(name)
    assert sum(field.width for field in fields) <= isa.WORD_BITS
    assert len({field.name for field in fields}) == len(fields)
    assert all(field.doc.endswith(".") for field in fields)
    assert isa.FORMATS[name][3].endswith(".")


@pytest.mark.parametrize(("call", "kind", "message"), [
    (lambda: isa.encode("LOOP", rd=32), ValueError, r"rd must be in 0\.\.31, not 32"),
    (lambda: isa.encode("ADDI", imm=1 << 31), ValueError, r"imm must be in -2147483648\.\."),
    (lambda: isa.encode("HALT", rd=1), TypeError, "HALT has no field rd"),
    (lambda: isa.decode(0), ValueError, "opcode 0x00 is no instruction"),
    (lambda: isa.decode(0x02 | 1 << 56), ValueError,
     "bits from 56 up must be zero in HALT, not 0x1"),
])
def test_what_is_no_instruction_is_refused(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_the_digest_covers_the_layout(monkeypatch):
    before = contract.text()
    formats = dict(isa.FORMATS)
    opcode, queue, fields, doc = formats["LOOP"]
    monkeypatch.setitem(isa.FORMATS, "LOOP", (opcode, queue, fields, doc + " Reworded."))
    assert contract.text() == before
    monkeypatch.setitem(isa.FORMATS, "LOOP", (opcode, queue, fields[::-1], doc))
    assert contract.text() != before
