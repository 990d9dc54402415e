"""Environments about calling tools, each in a package of its own.

``desk``: two service desks with a database, rules and a scripted customer, in the manner of tau-bench. ``calls``: single
function calls held against gold ones, in the manner of BFCL. ``maths``: sums for a Python interpreter and a colleague to
ask. ``sandbox``: where that interpreter runs.
"""
