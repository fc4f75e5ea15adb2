"""A table of tasks put to a run, as the report shows it: figures, a picture, ten questions with sound.

Must not write a file, nor know how a number is computed or drawn.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analyze.draw.answers import answers
from analyze.measure.cascade import MAX_CASCADE
from analyze.measure.listen import clips
from analyze.measure.sample import Progress, silent
from analyze.page.questions import Listened, TableView
from omni.errors import OmniError
from omni.evaluation.choice_figures import QuestionFigures, groups_of
from omni.evaluation.choices import Transcribe
from omni.evaluation.table import TableFigures, Wanted, judge_table
from omni.formats.asked import Table, read_utterances
from omni.formats.splits import SplitIndex
from omni.whisper.decoder import load_decoder

if TYPE_CHECKING:
    from analyze.examine import Request, Setting

LISTENED = 10


def table_views(
    tables: Sequence[Table],
    setting: "Setting",
    request: "Request",
    found: Sequence[SplitIndex],
    progress: Progress = silent,
) -> list[TableView]:
    """Measure tables.

    Args:
        found: splits in which their utterances may lie.

    Raises:
        OmniError: an utterance is in no shard, or the shards are of another encoder.
    """
    views = []
    for i, table in enumerate(tables):
        progress("questions", i, len(tables))
        views.append(_view(table, setting, request, found))
        progress("questions", i + 1, len(tables))
    return views


def _view(
    table: Table, setting: "Setting", request: "Request", found: Sequence[SplitIndex]
) -> TableView:
    s, run = setting, setting.run
    named = {task.split for task in table.tasks.rows}
    here = [split for split in found if split.split in named] or list(found)
    for split in here:
        run.check_features(split.fingerprint, str(split.folder))
    ids = [task.id for task in table.tasks.rows if task.id]
    samples = read_utterances(here, ids)
    adapters = run.config.get("lora")
    wanted = Wanted(
        batch_size=s.batch,
        transcribe=_decoder(len(samples), setting, request),
        text=s.lm.lora is not None,
        everywhere=adapters is not None and adapters["everywhere"],
        language=run.language,
        rate=1 / s.frame_seconds,
    )
    figures = judge_table(s.lm, s.tok, s.trained, table.tasks, samples, s.template, wanted)
    shown = _spread(figures, LISTENED)
    sounds = clips({q["id"]: samples[q["id"]] for q in shown}, request.manifests)
    return TableView(
        table.name,
        figures,
        answers(f"answers-{table.name}", f"Right answers: {table.name}", groups_of(figures)),
        [
            Listened(q, str(samples[q["id"]].meta["text_norm"]), sounds.get(q["id"], b""))
            for q in shown
        ],
    )


def _spread(figures: TableFigures, n: int) -> list[QuestionFigures]:
    """Questions from the worst to the best, evenly, so that neither is hidden."""
    ordered = sorted(
        figures["questions"], key=lambda q: (sum(q["right"]), q["id"], q["kind"], q["prompt"])
    )
    if len(ordered) <= n:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / (n - 1))] for i in range(n)]


def _decoder(n: int, setting: "Setting", request: "Request") -> Transcribe | None:
    """Whisper's decoder, where it lies on this machine and is not asked for long."""
    if request.device == "cpu" and n > MAX_CASCADE:
        return None
    config = setting.splits[0].fingerprint_config
    try:
        return load_decoder(
            request.encoder, config, request.device, network=False, language=setting.run.language
        ).transcribe
    except OmniError:
        return None
