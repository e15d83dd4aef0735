"""Sentence encoders in several engines, compared: `zeroskip bench embed`."""
