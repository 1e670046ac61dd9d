"""Ask a model what it says before each learned token of a share.

All rows of a share are one sequence, in which a mask and the tokens' positions tell them apart. A
model that would mix them up all the same is asked row by row: that takes longer, and is right.
Imported late, since it loads torch.
"""

import inspect
from typing import Any, cast

import torch  # noqa: TID253 - this module is itself imported late

from components.train import cpu_engine
from components.train.batches import Share
from components.train.packable import packs


def logits(model: torch.nn.Module, share: Share) -> torch.Tensor:
    """Give what a model says before each learned token, ``[learned tokens, words]``, in fp32."""
    longest = max(length for length, _ in share["sizes"].tolist())
    said = _together if packs(model, longest) else _apart
    return said(model, share).float()


def _together(model: torch.nn.Module, share: Share) -> torch.Tensor:
    dtype = getattr(model, "dtype", torch.float32)
    unseen = torch.zeros_like(share["seen"], dtype=dtype)
    unseen.masked_fill_(~share["seen"], torch.finfo(dtype).min)
    engine = cpu_engine.for_device(share["input_ids"].device.type)
    predicting = {"logits_to_keep": share["predicting"]}
    found = model(
        input_ids=share["input_ids"][None],
        position_ids=share["position_ids"][None],
        attention_mask=unseen[None, None],
        **(engine.inputs(model, share) if engine else predicting),
        use_cache=False,
    )
    return cast("torch.Tensor", found.logits[0])


def _apart(model: torch.nn.Module, share: Share) -> torch.Tensor:
    bare: Any = getattr(model, "get_base_model", lambda: model)()
    keeps = "logits_to_keep" in inspect.signature(bare.forward).parameters
    sizes = zip(*share["sizes"].tolist(), strict=True)
    own = (share["places"], share["position_ids"][share["predicting"]])
    rows = (one.split([*size]) for one, size in zip(own, sizes, strict=True))
    found: list[torch.Tensor] = []
    for places, asked in zip(*rows, strict=True):
        wanted = {"logits_to_keep": asked} if keeps else {}
        said = model(input_ids=share["input_ids"][places][None], use_cache=False, **wanted)
        found.append(said.logits[0] if keeps else said.logits[0, asked])
    return torch.cat(found)
