"""Where the models of the efficiency tracks come from, and what their times and answers are worth."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """A kind of model, named by what stands before the colon of `--model`.

    Attributes:
        form: how its models are written.
        are_times_real: whether its times say something about real models; else only what is counted does.
        are_answers_real: whether its answers mean something.
        may_be_folder: whether its models may be named by their paths, and are then known by what lies there.
        has_choice_of_layers: whether a model may be taken with fewer layers.
        has_tokenizer: whether its models read text.
        remark: why its results are never official; empty where they may be.
    """

    form: str
    are_times_real: bool = True
    are_answers_real: bool = True
    may_be_folder: bool = False
    has_choice_of_layers: bool = False
    has_tokenizer: bool = True
    remark: str = ""


ORIGINS: dict[str, Origin] = {
    "zoo": Origin("zoo:NAME", are_times_real=False, remark="synthetic: a small model of the zoo"),
    "random": Origin(
        "random:HUB-NAME",
        are_answers_real=False,
        has_choice_of_layers=True,
        has_tokenizer=False,
        remark="random weights: the answers mean nothing",
    ),
    "packaged": Origin("packaged:NAME"),
    "local": Origin("local:FOLDER, local:FILE.gguf or local:HUB-ID@REVISION", may_be_folder=True),
}
"""Origins by the name before the colon."""
