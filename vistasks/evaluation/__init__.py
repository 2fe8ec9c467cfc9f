"""Measuring a trained model: the evaluation loop, reports, the audit of labels, studies of several
trainings.
"""
