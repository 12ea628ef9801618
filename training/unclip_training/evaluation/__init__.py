# SPDX-License-Identifier: Apache-2.0
"""Measures a model directory with judges that took no part in its training.

judges (a classifier of scenes, and a second CLIP) -> prompts (what is asked for) -> pictures (the model's answers) ->
judging and metrics. nearest needs no judge: it compares with renderings, coarsely. Then one module a part of the report:
sets (the 64-pixel pictures), large (256 and 1024), sweeps (priors, guidance, steps), upsamplers (with likeness); report
puts them together. Figures of the sets stand beside the judges' own on real pictures, the ceiling.
"""
