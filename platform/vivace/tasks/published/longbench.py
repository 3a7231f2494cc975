"""LongBench: questions, summaries, examples and code over long contexts (Bai et al. 2023, arXiv 2308.14508)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vivace.errors import UsageError
from vivace.tasks.base import Sample
from vivace.tasks.published.files import ColumnError, FileTask, Row, text_of, texts_of


@dataclass(frozen=True)
class _Subset:
    """How one of LongBench's datasets is asked and scored.

    Attributes:
        metric: of `vivace.tasks.scores.metrics`.
        most_tokens: the longest answer, as LongBench's own limit.
        wording: the prompt, with `{context}` and `{input}` for the row's columns.
        plain: whether it is put without a chat template, as LongBench does with examples and code to be gone on with.
    """

    metric: str
    most_tokens: int
    wording: str
    plain: bool = False


_PASSAGES = (
    "Answer the question at the end from these passages, in as few words as possible and without explaining.\n\n"
    "{context}\n\nAnswer from the passages above, in as few words as possible.\nQuestion: {input}\nAnswer:"
)
_SUBSETS = {
    "narrativeqa": _Subset(
        "token_f1",
        128,
        "Read this story, the text of a novel or the script of a film, and answer the question at its end in a few "
        "words, without explaining.\n\n{context}\n\nAnswer from the story above, in a few words.\n"
        "Question: {input}\nAnswer:",
    ),
    "qasper": _Subset(
        "token_f1",
        128,
        "Read this scientific paper and answer the question at its end, in a few words or one sentence. Say yes or "
        'no where that is the answer, and "unanswerable" where the paper does not tell.\n\n{context}\n\nAnswer from '
        'the paper above, in a few words or one sentence, with "yes", "no" or "unanswerable" where that is the '
        "answer.\n"
        "Question: {input}\nAnswer:",
    ),
    "multifieldqa_en": _Subset(
        "token_f1",
        64,
        "Read this text and answer the question at its end briefly.\n\n{context}\n\nAnswer from the text above, with "
        "nothing but the answer.\nQuestion: {input}\nAnswer:",
    ),
    "hotpotqa": _Subset("token_f1", 32, _PASSAGES),
    "2wikimqa": _Subset("token_f1", 32, _PASSAGES),
    "musique": _Subset("token_f1", 32, _PASSAGES),
    "gov_report": _Subset(
        "rouge_l",
        512,
        "This is a report by an office of the government.\n\n{context}\n\nSummarise the report on one page.\n"
        "Summary:",
    ),
    "qmsum": _Subset(
        "rouge_l",
        512,
        "This is the record of a meeting.\n\n{context}\n\nAnswer this request about the meeting in one or a few "
        "sentences.\nRequest: {input}\nAnswer:",
    ),
    "multi_news": _Subset(
        "rouge_l",
        512,
        "These are articles from the news.\n\n{context}\n\nSummarise all of them together on one page.\nSummary:",
    ),
    "trec": _Subset(
        "classification",
        64,
        "Each of these questions has its type below it. Name the type of the last one.\n\n{context}\n{input}",
        plain=True,
    ),
    "triviaqa": _Subset(
        "first_line_f1",
        32,
        "Each of these passages is followed by a question and its short answer. Answer the last question in the same "
        "way.\n\n{context}\n\n{input}",
        plain=True,
    ),
    "samsum": _Subset(
        "first_line_rouge_l",
        128,
        "Each of these dialogues is followed by its summary. Summarise the last one in the same way.\n\n"
        "{context}\n\n{input}",
        plain=True,
    ),
    "passage_count": _Subset(
        "numbers_share",
        32,
        "Some of these paragraphs are in the list more than once. How many different ones are there?\n\n{context}\n\n"
        "Say how many different paragraphs there are, with nothing but the number.\nNumber:",
    ),
    "passage_retrieval_en": _Subset(
        "numbers_share",
        32,
        "One of these paragraphs is summarised at the end. Which one?\n\n{context}\n\nThe summary:\n\n{input}\n\n"
        'Name the paragraph that it summarises by its number, in the form "Paragraph 1".\nAnswer:',
    ),
    "lcc": _Subset("code_line", 64, "Write the next line of this program.\n\n{context}Next line:\n", plain=True),
    "repobench-p": _Subset(
        "code_line", 64, "Write the next line of this program.\n\n{context}{input}Next line:\n", plain=True
    ),
}
"""The sixteen datasets in English; those in Chinese need a division into words, which is not here."""
_LENGTHS = ((4000, "under 4k words"), (8000, "4k to 8k words"))
"""The bounds between LongBench-E's groups."""


@dataclass(frozen=True)
class LongBench(FileTask):
    """A long context with a question, scored as LongBench scores the dataset that it is from.

    Reads the lines of `THUDM/LongBench` (input, context, answers, length, dataset, all_classes), one dataset at a
    time: the file or folder of that name inside a folder. As LongBench does, trec, triviaqa, samsum, lcc and
    repobench-p are put without a chat template, and of a prompt that the model does not hold the middle is left out.
    Prompts are in Vivace's words, and ROUGE-L and the similarity of code differ from LongBench's in decimals (see
    the metrics), so that its published scores are near and not equal.

    Attributes:
        path: as of any task that reads files.
        split: as of any task that reads files.
        subset: a dataset in English by LongBench's name: narrativeqa, qasper, multifieldqa_en, hotpotqa, 2wikimqa,
            musique, gov_report, qmsum, multi_news, trec, triviaqa, samsum, passage_count, passage_retrieval_en, lcc,
            repobench-p.
    """

    name: ClassVar[str] = "longbench"
    metric: ClassVar[str] = "token_f1"
    most_tokens: ClassVar[int] = 512
    version: ClassVar[str] = "2"

    subset: str = ""

    def __post_init__(self) -> None:
        """Take the metric and the limit of the dataset that is named."""
        if self.subset not in _SUBSETS:
            named = f"There is no '{self.subset}' in" if self.subset else "Say which dataset of"
            raise UsageError(f"{named} longbench(path=FOLDER,subset=NAME): there are {', '.join(_SUBSETS)}.")
        # Both are the class's elsewhere; here they follow from a setting, and the dataclass is frozen.
        object.__setattr__(self, "metric", _SUBSETS[self.subset].metric)
        object.__setattr__(self, "most_tokens", _SUBSETS[self.subset].most_tokens)

    def belongs(self, path: Path) -> bool:
        """Whether the file or the folder around it has the name of the dataset."""
        return self.subset in (path.stem, path.parent.name)

    def read(self, row: Row) -> Sample:
        """The context with its question, in the dataset's wording."""
        found = str(row.get("dataset") or self.subset).removesuffix("_e")
        if found != self.subset:
            raise ColumnError(f"has '{found}' and not '{self.subset}' in 'dataset'")
        columns = {column: text_of(row, column) for column in ("context", "input")}
        asked = _SUBSETS[self.subset]
        classes = texts_of(row, "all_classes") if self.metric == "classification" else ()
        return Sample(
            id="",
            prompt=asked.wording.format(**columns),
            references=texts_of(row, "answers"),
            choices=classes,
            slice=_group(row),
            plain=asked.plain,
            cuttable=True,
        )


def _group(row: Row) -> str:
    """LongBench-E's group of the row, by its length in words; empty where the row does not tell."""
    length = row.get("length")
    if not isinstance(length, int):
        return ""
    return next((group for bound, group in _LENGTHS if length < bound), "8k words and more")
