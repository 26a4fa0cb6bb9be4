"""The bits of `links`."""

from forge_jobs.model import links


def test_each_bit_of_links_says_one_thing_and_fits_the_column() -> None:
    bits = [value for name, value in vars(links).items() if name.isupper()]
    assert len(bits) == len(set(bits)) >= 7
    assert all(bit.bit_count() == 1 and bit < 2**15 for bit in bits)
