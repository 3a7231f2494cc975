"""Audio: decoding what datasets bring, and encoding what models are sent."""
