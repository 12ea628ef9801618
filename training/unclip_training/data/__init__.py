# SPDX-License-Identifier: Apache-2.0
"""From icon sets to batches.

fetch (packages) -> icons (what there is, and its names) -> sprites (rendered, at every size) -> scenes (what a
picture shows) -> captions (and how it is said) -> table (a million scenes as arrays) -> compositor (scenes drawn
in batches on any device). pictures reads folders and WebDataset shards instead. split says what is never trained on.
"""
