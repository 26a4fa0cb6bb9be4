"""Values as bytes, and back."""

from typing import TYPE_CHECKING

from forge_jobs.rooms import offering

if TYPE_CHECKING:
    from forge_jobs.codecs.compression import compressed
    from forge_jobs.codecs.plain import Codec, register
    from forge_jobs.codecs.sealing import new_key, sealed
    from forge_jobs.codecs.wrapping import Wrapping
else:
    __getattr__ = offering(__name__, "plain", "wrapping", "compression", "sealing")

__all__ = ["Codec", "Wrapping", "compressed", "new_key", "register", "sealed"]
