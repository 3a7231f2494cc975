"""The process that holds a `local:` model: it loads the checkpoint, then answers a batch of conversations at a time.

It is started by `vivace.models.adapters.local`. torch and transformers are imported where they are used: from its
first moment on, this process must notice that the one that started it is gone, and importing them takes seconds.
"""

from __future__ import annotations

from vivace.models.local.service import serve
from vivace.models.local.spoken_model import SpokenModel

if __name__ == "__main__":
    serve(SpokenModel)
