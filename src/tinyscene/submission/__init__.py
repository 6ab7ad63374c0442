"""A submission to DCASE 2024 or 2025 Task 1: built from saved models, and checked whoever built it."""

from tinyscene.submission.build import build, evaluation_clips
from tinyscene.submission.check import Report, check
from tinyscene.submission.edition import EDITIONS, Edition, get_edition

__all__ = ["EDITIONS", "Edition", "Report", "build", "check", "evaluation_clips", "get_edition"]
