"""Dates in words. The standard library's names of months follow the locale of the process, which no world may."""

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
