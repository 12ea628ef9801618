# SPDX-License-Identifier: Apache-2.0
"""Measures a model directory with judges that took no part in its training.

judges (a classifier of scenes, and a second CLIP) -> prompts (what is asked for) -> pictures (the model's answers)
-> metrics. nearest needs no judge: it compares with renderings, coarsely. Every figure of a model stands beside the judges' own on real pictures, its ceiling.
"""
