"""Values as bytes, and back."""

from forge_jobs.codecs.plain import register as register
