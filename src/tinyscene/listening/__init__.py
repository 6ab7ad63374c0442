"""Recordings of any length, streams and microphones, in memory that does not grow."""

from tinyscene.listening.decisions import Decision, Smoothing, decisions
from tinyscene.listening.microphone import Microphone
from tinyscene.listening.model import Model, open_model
from tinyscene.listening.pcm import Pcm
from tinyscene.listening.recording import RecordingResult, predict
from tinyscene.listening.tape import Tape

__all__ = [
    "Decision",
    "Microphone",
    "Model",
    "Pcm",
    "RecordingResult",
    "Smoothing",
    "Tape",
    "decisions",
    "open_model",
    "predict",
]
