"""The knobs of AdaLoRA; ``ranks`` is what they set."""

from pydantic import Field, model_validator

from components.schema import Config


class AdaLora(Config):
    """How AdaLoRA spends its ranks (arXiv:2303.10512), by the names of PEFT's ``AdaLoraConfig``."""

    init_r: int = Field(default=12, ge=2, le=512)
    """Rank of each module at first: a third more than ``target_r`` leaves enough to choose from."""

    target_r: int = Field(default=8, ge=1, le=512)
    """Mean rank of the modules in the end: higher learns more and takes more memory."""

    tinit: float = Field(default=0.1, ge=0)
    """Steps before the first rank goes, below 1 a share of all: more gives each a fair chance."""

    tfinal: float = Field(default=0.3, ge=0)
    """Steps after the last rank went, below 1 a share of all: more lets what is left settle."""

    deltaT: int = Field(default=1, ge=1)  # noqa: N815 - PEFT's name
    """Steps between two choices: more is steadier, and prunes in larger bites."""

    beta1: float = Field(default=0.85, gt=0, lt=1)
    """How long a weight's sensitivity is remembered: higher is steadier and slower."""

    beta2: float = Field(default=0.85, gt=0, lt=1)
    """The same of how uncertain that sensitivity is."""

    orth_reg_weight: float = Field(default=0.5, ge=0)
    """Pull on the singular vectors to stay orthogonal: without it, ranks can't be told apart."""

    @model_validator(mode="after")
    def _prunes(self) -> "AdaLora":
        if self.target_r >= self.init_r:
            raise ValueError(
                f"AdaLoRA prunes from init_r to target_r: init_r {self.init_r} wants to be above "
                f"target_r {self.target_r}"
            )
        return self
