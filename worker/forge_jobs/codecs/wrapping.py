"""Codecs around codecs: what one writes, another packs or seals."""


class Wrapping:
    """A codec that changes the bytes that another one writes. Whatever either method raises makes the payload invalid.

    `inner` is the name of the other one. What is in a payload is for handlers only, and those who wait for results, if
    it `hides`.
    """

    inner: str
    hides: bool = False

    def wrap(self, payload: bytes) -> bytes:
        """Return bytes of which `unwrap` makes `payload`."""
        raise NotImplementedError

    def unwrap(self, payload: bytes) -> bytes:
        """Return what was wrapped."""
        raise NotImplementedError

    def wrap_for(self, payload: bytes, of: str) -> bytes:
        """Return the payload of a job of the kind `of` wrapped, or another value; what it is says `of` then, in words with spaces.

        Overwrite it to bind values to what they are. "" says nothing.
        """
        return self.wrap(payload)

    def unwrap_for(self, payload: bytes, of: str) -> bytes:
        """Return what was wrapped for the same."""
        return self.unwrap(payload)
