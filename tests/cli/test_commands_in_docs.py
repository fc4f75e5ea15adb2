"""Every command that a page, a command's help or a script's first lines name can be typed.

.venv/bin/python -m pytest tests/cli/test_commands_in_docs.py

Options exist and take the values given, `make` has the target, files that are run are there. What a
command then does is the other tests' subject. docs/log.md is left out: it says what was typed on a day.
"""

import argparse
import ast
import contextlib
import io
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from command_kit import commands, parser_of
from places import ROOT

PAGES = sorted(
    path
    for folder in (".", "docs", "manifests", "manifests/demo", "shards")
    for path in (ROOT / folder).glob("*.md")
    if path.name not in ("log.md", "commands.md")
)
SCRIPTS = sorted(
    path
    for folder in ("scripts", "bench", "bench/card")
    for path in (ROOT / folder).glob("*.py")
    if path.name != "__init__.py"
)
FENCE = re.compile(r"^```.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
PLACEHOLDER = re.compile(r"[A-Z]+|…|\.\.\.")  # DIR, B, …: any value will do
STARTERS = {"python", "pytest", "make", "torchrun", "srun", *commands()}


def commands_of(text: str) -> Iterator[list[str]]:
    """The commands in a page: lines of fenced blocks, and spans. Each from its first word on."""
    for line in "\n".join(FENCE.findall(text)).replace("\\\n", " ").splitlines():
        yield from _split(line)
    for span in SPAN.findall(FENCE.sub("", text)):
        yield from _split(span)


def examples_of(text: str) -> Iterator[list[str]]:
    """The commands in a help text or docstring: indented lines, remarks behind two blanks, and spans."""
    for line in text.replace("\\\n", " ").splitlines():
        if re.match(r"( {2,}\S|\.venv/bin/)", line):
            yield from _split(re.split(r"(?<=\S)\s{2,}(?!\s|--)", line.strip())[0])
    for span in SPAN.findall(text):
        yield from _split(span)


def _split(line: str) -> Iterator[list[str]]:
    for part in re.split(r"&&|\|\s|;|\s# ", line):
        with contextlib.suppress(ValueError):  # an apostrophe in a sentence
            words = [word.removeprefix(".venv/bin/") for word in shlex.split(part) if word != "$"]
            while words and re.match(r"[A-Z_]+=", words[0]):  # HYPOTHESIS_PROFILE=explore make test
                del words[0]
            if len(words) > 1 and words[-1] in ("…", "...") and words[-2][0] != "-":
                del words[-1]  # and so on
            if words and words[0] in STARTERS:
                yield words


def problem_of(words: Sequence[str]) -> str:
    """What is wrong with a command, "" if nothing is."""
    name, *args = words
    if name in ("torchrun", "srun"):  # what they start stands behind their own options
        place = next((i for i, word in enumerate(args) if word in (*commands(), "-m")), None)
        if place is None:
            return ""
        args = args[place:]
        if args[0] != "-m":
            return problem_of(args)
        return problem_of(["python", "-m", *(word for word in args[1:] if word != "--")])
    if name == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return "" if set(args) <= set(targets) else f"no such target: {args}"
    if name == "pytest":
        missing = [
            word for word in args if word.startswith("tests/") and not (ROOT / word).exists()
        ]
        return f"not there: {missing}" if missing else ""
    if name == "python":
        return _problem_of_python(args)
    return _problem_of_options(parser_of(name), args)


def _problem_of_python(args: Sequence[str]) -> str:
    if not args:
        return ""
    module = args[1] if args[0] == "-m" else ""
    rest = list(args[2:] if module else args[1:])
    verbs = {place: verb for verb, place in commands().items()}
    if module == "pytest" or module in verbs:
        return problem_of([verbs.get(module, "pytest"), *rest])
    name = module.replace(".", "/") if module else args[0].removesuffix(".py")
    files = [ROOT / f"{name}.py", ROOT / name / "__main__.py"]
    source = next((file for file in files if file.is_file()), None)
    if source is None:
        return f"no such script: {args}"
    known, own = options_of(source), rest[: rest.index("--")] if "--" in rest else rest
    unknown = [word for word in own if word.startswith("--") and word not in known]
    return f"no such option: {unknown}" if unknown else ""


def options_of(source: Path) -> set[str]:
    """The options that a script's parser, or that of the module it hands them to, is given."""
    text = source.read_text()
    if source.name == "extract.py" and source.parent.name == "bench":
        text += (source.parent / "no_encoder.py").read_text()
    return {
        node.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"--[a-z-]+", node.value)
    }


def _problem_of_options(parser: argparse.ArgumentParser, args: Sequence[str]) -> str:
    said = io.StringIO()
    given = ["1" if PLACEHOLDER.fullmatch(word) else word for word in args]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            parser.parse_args(given)
    except SystemExit as end:
        last = said.getvalue().splitlines()[-1:]
        named_only = last and "required" in last[0]  # `omni-transcribe` in a sentence
        return "" if named_only or not end.code else "".join(last)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_a_page_can_be_typed(page: Path) -> None:
    found = [(words, problem_of(words)) for words in commands_of(page.read_text())]
    assert [f"{' '.join(words)}: {problem}" for words, problem in found if problem] == []


@pytest.mark.parametrize("command", commands())
def test_examples_of_a_help_can_be_typed(command: str) -> None:
    found = list(examples_of(parser_of(command).description or ""))
    assert [f"{' '.join(words)}: {problem_of(words)}" for words in found if problem_of(words)] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_of_a_script_can_be_typed(script: Path) -> None:
    found = list(examples_of(ast.get_docstring(ast.parse(script.read_text()), clean=False) or ""))
    assert [f"{' '.join(words)}: {problem_of(words)}" for words in found if problem_of(words)] == []


def test_options_named_alone_are_some_commands() -> None:
    known = {option for name in commands() for option in parser_of(name)._option_string_actions}
    known |= {option for script in SCRIPTS for option in options_of(script)}
    spans = [
        (page.name, span.split()[0].split("=")[0])
        for page in PAGES
        for span in SPAN.findall(page.read_text())
        if re.match(r"--[a-z]", span)
    ]
    assert [(page, option) for page, option in spans if option not in known] == []
    assert len(spans) > 20


def test_every_command_is_on_a_page() -> None:
    named = {words[0] for page in PAGES for words in commands_of(page.read_text())}
    assert set(commands()) <= named


@pytest.mark.parametrize(
    "line",
    [
        "omni-extract --splt demo",
        "omni-extract --window 31",
        "omni-eval --batch-size 0",
        "omni-train-projector --projector cnn",
        "srun --ntasks 64 omni-extract --manifests a.parquet --nothing",
        "torchrun --nproc-per-node 2 -m -- cli.train_projector --step 3",
        "python -m bench.card --minute 9",
        "python -m bench.cards",
        "python scripts/beyond.py --work w",
        "make everything",
        "pytest tests/test_nothing.py",
        "WANDB_MODE=offline omni-pca --of",
    ],
)
@pytest.mark.parametrize("page", ["```bash\n{}   # so\n```\n", "Type `{}` now.\n"])
def test_what_can_not_be_typed_is_found(page: str, line: str) -> None:
    (words,) = commands_of(page.format(line))
    assert problem_of(words)
