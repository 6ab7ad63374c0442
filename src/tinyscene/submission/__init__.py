"""A challenge submission: built from saved models, and checked whoever built it."""

from tinyscene.submission.build import build
from tinyscene.submission.check import check
from tinyscene.submission.edition import Edition
from tinyscene.submission.editions import EDITIONS, get_edition
from tinyscene.submission.problems import Problem, Report

__all__ = ["EDITIONS", "Edition", "Problem", "Report", "build", "check", "get_edition"]
