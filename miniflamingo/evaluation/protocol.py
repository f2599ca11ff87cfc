"""All that a score depends on beside the model and the data, so that two can be compared."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from miniflamingo.errors import UserError
from miniflamingo.evaluation.example import fingerprint
from miniflamingo.evaluation.results import model_fingerprint
from miniflamingo.evaluation.tasks import Task, TaskData
from miniflamingo.files import read_json, write_whole
from miniflamingo.model.export import read_config
from miniflamingo.model.flamingo import MiniFlamingo

PAPER = {"text_examples": 2, "support_size": 2048}
"""Source: Flamingo, section 3.1 and appendix B.2.1."""


def departures(task: Task, own_support: bool) -> list[str]:
    """How a task differs from the paper's protocol."""
    found = []
    if task.text_examples != PAPER["text_examples"]:
        found.append(f"0 shots show {task.text_examples} examples without pictures, the paper's 2")
    if own_support:
        found.append("each query has a support set of its own, the paper one of 2048 for all")
    elif task.support_size != PAPER["support_size"]:
        found.append(f"a support set of {task.support_size}, the paper's 2048")
    if not task.classify and task.decoding.beams != 3:
        found.append(f"{task.decoding.beams} beams, the paper's 3")
    return found


def arithmetic(model: MiniFlamingo, batch_size: int) -> dict[str, Any]:
    """What scores depend on a little beside model and prompts: how numbers are rounded.

    Args:
        model: As it is loaded.
        batch_size: Prompts at a time, whose lengths decide how they are padded.
    """
    return {
        "precision": str(model.language.dtype).removeprefix("torch."),
        "attention kernel": model.language.config._attn_implementation,
        "batch size": batch_size,
    }


def protocol(task: Task, data: TaskData, support: str, permutations: int) -> dict[str, Any]:
    """What two results must share to be compared.

    Args:
        task: With the options of the command line in place.
        data: Its examples.
        support: ``random`` or ``rices``.
        permutations: Orders of shots that a classifying task averages over.
    """
    own = any(query.support for query in data.queries)
    described: dict[str, Any] = {
        "task": task.name,
        "metric": task.metric,
        "template": task.template,
        "separator": task.separator,
        "queries": len(data.queries),
        "support": {
            "random": "drawn for each query by seed",
            "rices": "most similar to the query by CLIP, the most similar last",
        }[support],
        "support set": "the query's own examples" if own else f"{len(data.support)} for all",
        "answers of the support": "one of the annotators', drawn by seed",
        "0 shots": f"{task.text_examples} examples without their pictures",
    }
    if task.classify:
        described |= {
            "answer": "most likely of all classes: name and end of chunk, summed over tokens",
            "classes": len(data.classes),
            "orders of shots averaged": permutations,
        }
    else:
        described |= {"stop": task.stop, "decoding": asdict(task.decoding)}
    return described | {"departures from the paper": departures(task, own)}


def fingerprints(folder: str | Path, data: TaskData) -> dict[str, str]:
    """Hashes of the exported model, the fingerprints of its frozen parts included, and of the data.

    Raises:
        UserError: If the folder is no export of a MiniFlamingo.
    """
    read_config(folder)
    parts = (data.queries, data.support)
    return {
        "model": model_fingerprint(folder),
        "data": "-".join(fingerprint(each)[:32] for each in parts),
    }


def claim_folder(folder: Path, belongs: dict[str, Any]) -> None:
    """Make the folder of finished cells, or make sure that those there belong to this evaluation.

    Args:
        folder: Of the cells.
        belongs: Protocol and fingerprints.

    Raises:
        UserError: If the folder holds cells of another protocol, model or data.
    """
    file = folder / "protocol.json"
    text = json.dumps(belongs, indent=2) + "\n"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, text)
        return
    found = read_json(file)
    other = [
        f"{name}: {found.get(part, {}).get(name)!r} there, {value!r} now"
        for part, values in belongs.items()
        for name, value in values.items()
        if found.get(part, {}).get(name) != value
    ]
    if other:
        raise UserError(
            f"{folder} holds finished cells of another evaluation ({'; '.join(other)}). Delete it "
            "or choose another --out."
        )
