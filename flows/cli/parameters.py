"""Arguments and options that several commands share."""

import getpass
from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(help="The YAML file that describes the workload.")]

WorkloadArgument = Annotated[str, typer.Argument(help="The workload's name, as in its file.")]

WorkloadOption = Annotated[
    str | None, typer.Option("--workload", help="Only this workload; all if left out.")
]

SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source",
        help="The form of the records: fivekey, feedback, otlp, mlflow, langfuse, "
        "langsmith, litellm, tensorzero, openpipe, openai_logs, openai_finetuning, sharegpt, "
        "bedrock, vertex, helicone, braintrust, weave or kong; detected when left out.",
    ),
]

PersonOption = Annotated[
    str,
    typer.Option(
        "--as",
        help="Your name; stored with what you do.",
        default_factory=getpass.getuser,
        show_default="your login",
    ),
]

CodeOption = Annotated[
    str,
    typer.Option(
        "--code",
        help="The one-time code of your authenticator app, where the workload's file requires one; "
        "it proves that you were here, not what you said. Better set FLYWHEEL_CODE: other users "
        "see the arguments of commands.",
        envvar="FLYWHEEL_CODE",
    ),
]

KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        help="The SSH key to sign with, where the workload's file requires signatures: a private "
        "key's file, or the .pub of one that your agent holds. Left out, your key that the rules "
        "list is looked for in the agent and in ~/.ssh.",
    ),
]
