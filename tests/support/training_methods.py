"""Recipes of every method, small enough to learn in a second on the tiny model."""

from components.train.recipe import AdaLora, Recipe

STEADY = {"learning_rate": 2e-2, "per_device_train_batch_size": 4, "num_train_epochs": 2}
SMALL = STEADY | {"r": 4, "lora_alpha": 8}
ADALORA = STEADY | {
    "method": "adalora",
    "learning_rate": 6e-2,
    "adalora": AdaLora(init_r=6, target_r=3),
}
BF16 = {"bnb_4bit_quant_type": None}

RECIPES: dict[str, Recipe] = {
    name: Recipe.model_validate(knobs)
    for name, knobs in {
        "lora": SMALL | BF16,
        "qlora-nf4": SMALL,
        "qlora-fp4": SMALL | {"bnb_4bit_quant_type": "fp4"},
        "rslora": SMALL | BF16 | {"use_rslora": True},
        "dora": SMALL | BF16 | {"use_dora": True},
        "dora-nf4": SMALL | {"use_dora": True},
        "pissa": SMALL | BF16 | {"init_lora_weights": "pissa"},
        "pissa-rslora-dora-nf4": SMALL
        | {"init_lora_weights": "pissa_niter_4", "use_rslora": True, "use_dora": True},
        "loftq": SMALL | {"init_lora_weights": "loftq"},
        "eva": SMALL | BF16 | {"init_lora_weights": "eva"},
        "adalora": ADALORA | BF16,
        "adalora-nf4": ADALORA,
        "full": STEADY | BF16 | {"method": "full", "learning_rate": 5e-3},
    }.items()
}
