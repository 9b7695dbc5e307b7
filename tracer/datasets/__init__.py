"""Datasets: where prompts come from, and what makes two datasets the same one."""

from tracer.datasets.loader import load_dataset
from tracer.datasets.options import Dataset, DatasetOptions

__all__ = ["Dataset", "DatasetOptions", "load_dataset"]
