"""What a workload file says under ``curate.overlap``; what it is used for is slow to import."""

from pydantic import Field

from components.schema import Config


class Overlap(Config):
    """What is too much of a tested text in a row that is trained on."""

    words: int = Field(default=8, ge=3)
    """Words of a run that two texts have in common; shorter runs find more that means nothing,
    longer ones miss what was edited. Texts of fewer words are not compared."""

    share: float = Field(default=0.2, gt=0, le=1)
    """Share of the shorter text's runs; at 1 a row is left out only if one is part of the other.
    ``0.2`` finds 98 % of GSM8K's questions with one word in ten changed, ``0.5`` 37 %."""

    paraphrases: float | None = Field(default=None, gt=0, le=1)
    """Also leave out rows whose words are those of a tested text, in whatever order: from this
    cosine of TF-IDF weights on. ``0.45`` finds 84 % of GSM8K's rephrasings, of which runs of words
    find none, and takes 1.5 % of other questions like them for one. Not looked at if unset."""

    guards: tuple[str, ...] = ()
    """JSONL or Parquet files whose texts guard tasks test on; relative to the workload file."""
