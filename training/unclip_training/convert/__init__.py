# SPDX-License-Identifier: Apache-2.0
"""Converters: torch's files to safetensors (pickles), Kakao Brain's names to diffusers' (karlo), number formats
(precision), merging LoRA (lora), whole directories (folders), the command line (command)."""


class Refused(Exception):
    """What can't be converted, in one line, whatever names a file brought into it."""

    def __init__(self, text: str) -> None:
        super().__init__("".join(letter if letter.isprintable() else "?" for letter in text))
