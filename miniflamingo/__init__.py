"""Mini-Flamingo: frozen CLIP, perceiver resampler, gated cross-attention in a frozen LM."""

from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.document import Chunk, Document, Video
from miniflamingo.model.config import MiniFlamingoConfig
from miniflamingo.model.flamingo import MiniFlamingo

__version__ = "0.1.0"

__all__ = [
    "Chunk",
    "Document",
    "MiniFlamingo",
    "MiniFlamingoConfig",
    "MiniFlamingoProcessor",
    "Video",
]
