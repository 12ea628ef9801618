# SPDX-License-Identifier: Apache-2.0
"""What docs/fine-tuning.md shows: its fifty pictures, and the sheet of before and after."""
