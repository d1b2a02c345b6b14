"""The ways in which folders of scans are laid out, by the names that the command line knows."""

from enum import StrEnum


class Layout(StrEnum):
    auto = "auto"  # by what lies in it
    folders = "folders"  # a level of the folders is the domain
    bids = "bids"
    nnunet = "nnunet"  # and the Medical Segmentation Decathlon's
    csv = "csv"
    index_json = "index"
