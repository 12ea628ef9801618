# SPDX-License-Identifier: Apache-2.0
"""Trains and evaluates the shipped model: pictures and captions in, a model directory out.

Reading order: presets (every size and budget), data (icons to scenes to batches), stages (one file a network),
loop (how any of them is trained and resumed), export (the model directory), evaluation.
"""
