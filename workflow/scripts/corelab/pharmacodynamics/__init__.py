"""Pharmacodynamics: from imaging endpoint to drug effect, as a statistician would sign it.

:func:`corelab.plan.run.run` carries out one analysis of the plan and gives statistics
rows. The methods themselves lie in the modules and take plain arrays, so that they can be called,
and checked, without a study around them.
"""
